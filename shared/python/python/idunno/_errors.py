"""What is raised. Every error has the words and the code of the command line.

>>> raise NotFoundError("there is no job-7")
Traceback (most recent call last):
    ...
idunno.NotFoundError: there is no job-7
>>> error_of(6, "refused").code, error_of(6, "refused").kind
(6, 'refused')
"""

from __future__ import annotations

import builtins


class Error(Exception):
    """An operation failed. `code` is the exit code that the command line has for it, and `kind` its name."""

    code: int = 1
    kind: str = "error"


class UsageError(Error, ValueError):
    """An argument is invalid: nothing was asked of the cluster."""

    code, kind = 2, "usage"


class NotFoundError(Error, LookupError):
    """The file, version, job, model or member that was named does not exist."""

    code, kind = 3, "not-found"


class UnreachableError(Error, ConnectionError):
    """There is no coordinator, or no member answers. Whether a change was made may be unknown."""

    code, kind = 4, "unreachable"


class TimeoutError(Error, builtins.TimeoutError):
    """The time that was given is over."""

    code, kind = 5, "timeout"


class RefusedError(Error):
    """The cluster refused: the input is invalid, or its state or the identity does not allow it."""

    code, kind = 6, "refused"


class PartialError(Error):
    """Only a part was done: a job that was waited for is stopped, paused or cancelled, for example."""

    code, kind = 7, "partial"


class IncompleteWarning(UserWarning):
    """Something was left out of what was done; the text says what."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a wait, not the job: the text says how to attach to it again."""


for _kind in (*Error.__subclasses__(), Error, IncompleteWarning, Interrupted):
    # Tracebacks name what programs import.
    _kind.__module__ = "idunno"
_BY_CODE = {kind.code: kind for kind in Error.__subclasses__()}


def error_of(code: int, message: str) -> Error:
    """The error that the command line would end with."""
    return _BY_CODE.get(code, Error)(message)
