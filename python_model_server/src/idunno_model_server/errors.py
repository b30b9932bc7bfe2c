"""The exceptions that callers of this package handle, one class per operation."""

from __future__ import annotations


class ApiError(Exception):
    """Ends one HTTP request with a status and a message that names what is at fault.

    `retry_after_s` tells the client that the same request may succeed later. `traceback` is that of a model's own code.
    `runner` says what the model's process did: "ended" with these rows, or "restarting".
    """

    def __init__(
        self,
        status: int,
        message: str,
        retry_after_s: int | None = None,
        traceback: str | None = None,
        runner: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s
        self.traceback = traceback
        self.runner = runner


class RowError(Exception):
    """An input can never be answered. Its row carries the message as `error`; the rest of the batch is unaffected.

    Raised by `decode`, `predict` or `encode`, or returned in the place of an output.
    """


class ModelFailure(Exception):
    """A model's own code raised something, or broke a rule. It fails the request, and nothing else.

    The message names the exception's type and where it was raised; `traceback` is bounded and printable.
    """

    def __init__(self, message: str, traceback: str = "", *, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.traceback = traceback
        self.out_of_memory = out_of_memory


class RunnerError(Exception):
    """The process that runs a model ended, was ended, or could not be started. The message has its last lines."""


class RunnerNotReadyError(Exception):
    """The process that runs a model has ended, and does not run again yet. The message says why it ended."""


class OutputError(Exception):
    """`predict` or `encode` returned something of another type, or another number of outputs than inputs."""


class MemoryShortageError(Exception):
    """A model declares more memory than is available. The message has both figures."""


class ParameterError(Exception):
    """A request sets a parameter that the model does not declare, or a value that the declaration does not allow."""


class DatasetError(Exception):
    """A dataset cannot be read. The message names the file and, where there is one, the line."""


class MakeDatasetError(Exception):
    """A sample dataset cannot be generated from the data files."""


class MissingPackageError(Exception):
    """A needed package or data file (weights, photos, tables) is missing. The message says how to get it."""


class FetchDataError(Exception):
    """A data file cannot be had, or is not the locked one. The message names it and says what to do.

    If the network or a server may be at fault, the exception has a cause.
    """


class ModelFileError(Exception):
    """A user's model file breaks a rule. The message names the class and the rule."""


class PackageError(Exception):
    """A package is no model. The message names the file and the rule."""


class ModelLoadError(Exception):
    """An artefact does not belong to its model, or `load` or `encode` returned the wrong type."""


class TrainingError(Exception):
    """A training failed. The message is the training process's own, if it reported one."""


class ConversionError(Exception):
    """A weights file does not fit the network that it is converted to."""


class FaultPlanError(Exception):
    """A fault-injection plan is invalid. The message names the entry."""
