"""What all commands share: settings, output, errors, waiting and stops."""
