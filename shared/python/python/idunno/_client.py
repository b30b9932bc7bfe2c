"""The client for blocking code."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, Unpack, overload

from . import _frames
from ._core import Core, JobOptions
from ._errors import Interrupted
from ._steps import Steps, T, drive
from ._streams import Events, Results
from ._types import (
    AddedModel,
    DeadLetter,
    Explanation,
    File,
    JobStats,
    Member,
    Model,
    Row,
    RunOptions,
    StoredFile,
)

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

Bytes = bytes | bytearray | memoryview
PathText = str | os.PathLike[str]


def connect(
    cluster: str | Sequence[str] | None = None,
    *,
    context: str | None = None,
    identity: PathText | None = None,
    dir: PathText | None = None,
    timeout: float | None = None,
) -> Client:
    """A client of a cluster, which is found as the command line finds it.

    `cluster` is the address of a member, or several with commas between them; `context` a cluster of `config.toml`;
    `dir` the folder of a local cluster; `identity` an identity file. Without any of them the variables
    `IDUNNO_CLUSTER` and `IDUNNO_CONTEXT` count, then `config.toml`, then the local cluster in `.idunno-local`.
    `timeout` is how many seconds an operation tries (30). Nothing is asked of the cluster yet.

    >>> import idunno
    >>> idunno.connect("127.0.0.1:7401")
    <idunno.Client of 127.0.0.1:7401>
    >>> idunno.connect("127.0.0.1")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    idunno.UsageError: ...cannot resolve '127.0.0.1'...
    """
    return Client(cluster, context=context, identity=identity, dir=dir, timeout=timeout)


class Client:
    """A cluster. Several threads may use one client; after `os.fork()` a child may go on using it."""

    def __init__(
        self,
        cluster: str | Sequence[str] | None = None,
        *,
        context: str | None = None,
        identity: PathText | None = None,
        dir: PathText | None = None,
        timeout: float | None = None,
    ) -> None:
        self._core = Core(cluster, context, identity, dir, timeout)

    def __repr__(self) -> str:
        return f"<idunno.Client of {self._core.label}>"

    # The store.

    def put(self, data: Bytes | PathText | IO[bytes], name: str) -> StoredFile:
        """Stores bytes, a local file by its path, or an open file, as a new version of `name`."""
        return drive(self._core.put(data, name))

    @overload
    def get(self, name: str, target: None = None, *, version: int | None = None) -> bytes: ...
    @overload
    def get(self, name: str, target: PathText | IO[bytes], *, version: int | None = None) -> None: ...
    def get(self, name: str, target: PathText | IO[bytes] | None = None, *, version: int | None = None) -> bytes | None:
        """Fetches and verifies a file: its bytes, or into a local path or an open file."""
        return drive(self._core.get(name, target, version))

    def ls(self, prefix: str = "") -> list[File]:
        """The file of this name, or all whose names begin with it."""
        return drive(self._core.ls(prefix))

    def delete(self, name: str) -> int:
        """Deletes a file; returns how many versions it had."""
        return drive(self._core.delete(name))

    # Jobs.

    def run(
        self,
        model: Any,
        data: Any,
        **options: Unpack[RunOptions],
    ) -> Job:
        """Starts a job: a model over data. Returns at once; the job runs whatever becomes of this process.

        `model` is a model's name, or what `idunno.model` decorates. `data` is

        - a text: the name of a dataset, or of a file of records, in the store;
        - a `pathlib.Path`: a local folder, each of whose files is a query, or a file of records;
        - a list or an iterator of JSON values, each of them a query; an object with `input` (and `label`, `id`) is a
          record;
        - a list or an iterator of bytes or of paths: each of them is a file, and a query;
        - a data frame or an Arrow table: each row is a record, or its value if there is one column.

        Data that is not in the store yet is kept there as long as the job needs it, or under the name `dataset`. The
        other arguments are those of `add-job` and `start-job`: see `idunno.RunOptions`.
        """
        return Job(self._core, drive(self._core.submit(model, data, JobOptions.of(options))), options.get("name"))

    def job(self, name: str) -> Job:
        """Attaches to a job by its number (`job-3`), its name, or its model's name."""
        stats = drive(self._core.stats(name))
        return Job(self._core, stats["job"], stats["name"])

    def jobs(self) -> list[JobStats]:
        """Figures of all jobs."""
        return drive(self._core.jobs())

    # Models and members.

    def models(self) -> list[Model]:
        """All models, and their state on each member."""
        return drive(self._core.models())

    def add_model(self, model: Any, name: str | None = None) -> AddedModel:
        """Adds a model of your own: a folder or file, or what `idunno.model` decorates."""
        return drive(self._core.add_model(model, name))

    def train(self, *models: str, dataset: str | None = None, seed: int | None = None) -> None:
        """Trains or converts predefined models, and waits until they are trained."""
        drive(self._core.train(models, dataset, seed))

    def members(self) -> list[Member]:
        """The members of the cluster."""
        return drive(self._core.members())

    def events(self) -> Events:
        """What happens in the cluster from now on, as it happens: elections, joins, deaths, jobs, models, copies.

        An outage longer than the client's `timeout` raises `UnreachableError`; the iteration may go on after it.
        """
        return Events(drive(self._core.events()))

    def command(self, *words: str) -> Any:
        """Runs any command of the command line, and returns its document: `client.command("set-policy", "fifo")`."""
        return drive(self._core.call(*words))


class Job:
    """A job of the cluster."""

    def __init__(self, core: Core, id: str, name: str | None) -> None:
        self._core = core
        self.id = id
        self.name = name

    def __repr__(self) -> str:
        return f"<idunno.Job {self.id}{f' ({self.name})' if self.name else ''}>"

    def wait(self, timeout: float | None = None, *, progress: bool | None = None) -> JobStats:
        """Waits until the job is done. Ctrl-C ends the wait, not the job.

        Raises `TimeoutError` after `timeout` seconds, and `PartialError` if the job is stopped, paused or cancelled.
        `progress` shows a bar, or none; by default there is one on a terminal and in a notebook, if tqdm is installed.
        """
        return self._interruptible(self._core.wait(self.id, timeout, progress))

    def results(self, *, failed: bool = False) -> Results:
        """The rows, each once, as they are committed; ends when the job is done.

        `failed` gives those of queries that failed permanently only. A failed row that was retried is followed by its
        answer.
        """
        return Results(self._core.native.rows(self.id, failed), self._interrupted)

    def to_pandas(self, *, progress: bool | None = None) -> pandas.DataFrame:
        """Waits for the job; its rows as a data frame of pandas, in the order of the inputs."""
        return _frames.to_pandas(self._all(progress))

    def to_polars(self, *, progress: bool | None = None) -> polars.DataFrame:
        """Waits for the job; its rows as a data frame of polars, in the order of the inputs."""
        return _frames.to_polars(self._all(progress))

    def to_arrow(self, *, progress: bool | None = None) -> pyarrow.Table:
        """Waits for the job; its rows as a table of Arrow, in the order of the inputs."""
        return _frames.to_arrow(self._all(progress))

    def _all(self, progress: bool | None) -> list[Row]:
        self.wait(progress=progress)
        return list(self.results())

    @property
    def stats(self) -> JobStats:
        """The job's figures now."""
        return drive(self._core.stats(self.id))

    def explain(self) -> Explanation:
        """Why the job runs as it does, or does not run, and what to do."""
        return drive(self._core.explain(self.id))

    def dead_letters(self) -> list[DeadLetter]:
        """The queries that failed permanently, with their reasons."""
        return drive(self._core.dead_letters(self.id))

    def retry(self, *queries: int) -> int:
        """Runs dead letters again, all or those of these numbers; returns how many."""
        return drive(self._core.retry(self.id, queries))

    def stop(self) -> None:
        """Pauses the job: `start` resumes it."""
        drive(self._core.call("stop-job", "--", self.id))

    def start(self) -> None:
        """Resumes the job."""
        drive(self._core.call("start-job", "--", self.id))

    def cancel(self) -> None:
        """Ends the job; the rows that it has are kept."""
        drive(self._core.call("cancel-job", "--yes", "--", self.id))

    def delete(self) -> None:
        """Permanently deletes the job, which must not be running, and its results."""
        drive(self._core.call("delete-job", "--yes", "--", self.id))

    def _interruptible(self, steps: Steps[T]) -> T:
        try:
            return drive(steps)
        except KeyboardInterrupt:
            raise self._interrupted() from None

    def _interrupted(self) -> Interrupted:
        name = self.name or self.id
        return Interrupted(
            f"{self.id} goes on without this wait: client.job({name!r}) attaches to it again, .cancel() ends it"
        )
