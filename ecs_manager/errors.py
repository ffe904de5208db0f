"""What the manager reports as a failure, as a title and a message."""


class ManagerError(Exception):
    """Something expected went wrong. Goes into the reply; holds nothing secret."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title = title
        self.message = message


class BadRequest(Exception):
    """The event is not one that the manager understands."""
