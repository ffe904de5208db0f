"""What every command stands in: which environment, what is printed, what can go wrong."""
