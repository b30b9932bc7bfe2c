"""The errors that cross a boundary: to the HTTP client, to one row of a batch, to the trainer's caller."""

from __future__ import annotations


class ApiError(Exception):
    """Ends one HTTP call with a status and a message that names the thing at fault.

    `retry_after_s` tells the client that the same call may succeed later.
    """

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


class RowError(Exception):
    """One input cannot be answered, for good. It becomes the row's "error" and does not fail the batch."""


class MissingPackageError(Exception):
    """A package that is installed for its files (weights, photos) is not there. The message names the command."""


class DatasetError(Exception):
    """A data set cannot be read. The message names the file, and the line where there is one."""


class ParameterError(Exception):
    """A parameter of a call is unknown to the model, or its value does not fit."""
