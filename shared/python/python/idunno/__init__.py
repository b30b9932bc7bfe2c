"""IDunno: fault-tolerant batch inference on plain machines.

    import idunno

    client = idunno.connect()
    job = client.run("newsgroups-linear", ["a text", "another text"])
    for row in job.results():
        print(row["query"], row["output"])

`idunno.connect` gives a client for blocking code, `idunno.AsyncClient` is one for coroutines. `idunno.model` makes a
model of a function or a class, `idunno.LocalCluster` starts a cluster on this machine.

>>> import idunno
>>> idunno.__version__.count(".")
2
"""

from typing import TYPE_CHECKING, Any

from ._client import Client, Job, connect
from ._errors import (
    Error,
    IncompleteWarning,
    Interrupted,
    NotFoundError,
    PartialError,
    RefusedError,
    TimeoutError,
    UnreachableError,
    UsageError,
)
from ._local import LocalCluster
from ._models import model
from ._native import __version__
from ._source import SourceError
from ._streams import AsyncEvents, AsyncResults, Events, Results
from ._types import (
    AddedModel,
    DeadLetter,
    Event,
    Explanation,
    File,
    JobState,
    JobStats,
    Member,
    Model,
    ModelOnMember,
    ProcessingTimes,
    Row,
    RunOptions,
    StoredFile,
)

if TYPE_CHECKING:
    from ._async import AsyncClient, AsyncJob

__all__ = [
    "AddedModel",
    "AsyncClient",
    "AsyncEvents",
    "AsyncJob",
    "AsyncResults",
    "Client",
    "DeadLetter",
    "Error",
    "Event",
    "Events",
    "Explanation",
    "File",
    "IncompleteWarning",
    "Interrupted",
    "Job",
    "JobState",
    "JobStats",
    "LocalCluster",
    "Member",
    "Model",
    "ModelOnMember",
    "NotFoundError",
    "PartialError",
    "ProcessingTimes",
    "RefusedError",
    "Results",
    "Row",
    "RunOptions",
    "SourceError",
    "StoredFile",
    "TimeoutError",
    "UnreachableError",
    "UsageError",
    "__version__",
    "connect",
    "model",
]


def __getattr__(name: str) -> Any:
    # Only programs that use coroutines pay for their library.
    if name in ("AsyncClient", "AsyncJob"):
        from . import _async

        return getattr(_async, name)
    raise AttributeError(f"module 'idunno' has no attribute {name!r}")
