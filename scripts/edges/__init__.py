"""The doors to the world outside: AWS, other programs, git, HTTP. Nothing else talks to it."""
