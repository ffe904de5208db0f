"""Access to everything outside this process: AWS, other programs, git, HTTP. No other module does that."""
