"""The embedded AWS behind --env=local."""
