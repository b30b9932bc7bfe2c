"""The client for coroutines: the same names and arguments as those of `idunno.Client`, each to be awaited."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, Unpack, overload

from . import _frames
from ._client import Bytes, PathText
from ._core import Core, JobOptions
from ._steps import adrive
from ._streams import AsyncEvents, AsyncResults
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


class AsyncClient:
    """A cluster, for coroutines. Its arguments are those of `idunno.connect`."""

    def __init__(
        self,
        cluster: str | Sequence[str] | None = None,
        *,
        context: str | None = None,
        identity: PathText | None = None,
        dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> None:
        self._core = Core(cluster, context, identity, dir, timeout)

    def __repr__(self) -> str:
        return f"<idunno.AsyncClient of {self._core.label}>"

    async def put(self, data: Bytes | PathText | IO[bytes], name: str) -> StoredFile:
        """See `Client.put`."""
        return await adrive(self._core.put(data, name))

    @overload
    async def get(self, name: str, target: None = None, *, version: int | None = None) -> bytes: ...
    @overload
    async def get(self, name: str, target: PathText | IO[bytes], *, version: int | None = None) -> None: ...
    async def get(
        self, name: str, target: PathText | IO[bytes] | None = None, *, version: int | None = None
    ) -> bytes | None:
        """See `Client.get`."""
        return await adrive(self._core.get(name, target, version))

    async def ls(self, prefix: str = "") -> list[File]:
        """See `Client.ls`."""
        return await adrive(self._core.ls(prefix))

    async def delete(self, name: str) -> int:
        """See `Client.delete`."""
        return await adrive(self._core.delete(name))

    async def run(
        self,
        model: Any,
        data: Any,
        **options: Unpack[RunOptions],
    ) -> AsyncJob:
        """See `Client.run`."""
        return AsyncJob(
            self._core, await adrive(self._core.submit(model, data, JobOptions.of(options))), options.get("name")
        )

    async def job(self, name: str) -> AsyncJob:
        """See `Client.job`."""
        stats = await adrive(self._core.stats(name))
        return AsyncJob(self._core, stats["job"], stats["name"])

    async def jobs(self) -> list[JobStats]:
        """See `Client.jobs`."""
        return await adrive(self._core.jobs())

    async def models(self) -> list[Model]:
        """See `Client.models`."""
        return await adrive(self._core.models())

    async def add_model(self, model: Any, name: str | None = None) -> AddedModel:
        """See `Client.add_model`."""
        return await adrive(self._core.add_model(model, name))

    async def train(self, *models: str, dataset: str | None = None, seed: int | None = None) -> None:
        """See `Client.train`."""
        await adrive(self._core.train(models, dataset, seed))

    async def members(self) -> list[Member]:
        """See `Client.members`."""
        return await adrive(self._core.members())

    async def events(self) -> AsyncEvents:
        """See `Client.events`: `async for event in await client.events()`."""
        return AsyncEvents(await adrive(self._core.events()))

    async def command(self, *words: str) -> Any:
        """See `Client.command`."""
        return await adrive(self._core.call(*words))


class AsyncJob:
    """A job of the cluster, for coroutines."""

    def __init__(self, core: Core, id: str, name: str | None) -> None:
        self._core = core
        self.id = id
        self.name = name

    def __repr__(self) -> str:
        return f"<idunno.AsyncJob {self.id}{f' ({self.name})' if self.name else ''}>"

    async def wait(self, timeout: float | None = None, *, progress: bool | None = None) -> JobStats:
        """See `Job.wait`. Cancelling the coroutine ends the wait, not the job."""
        return await adrive(self._core.wait(self.id, timeout, progress))

    def results(self, *, failed: bool = False) -> AsyncResults:
        """See `Job.results`: `async for row in job.results()`."""
        return AsyncResults(self._core.native.rows(self.id, failed))

    async def to_pandas(self, *, progress: bool | None = None) -> pandas.DataFrame:
        """See `Job.to_pandas`."""
        return _frames.to_pandas(await self._all(progress))

    async def to_polars(self, *, progress: bool | None = None) -> polars.DataFrame:
        """See `Job.to_polars`."""
        return _frames.to_polars(await self._all(progress))

    async def to_arrow(self, *, progress: bool | None = None) -> pyarrow.Table:
        """See `Job.to_arrow`."""
        return _frames.to_arrow(await self._all(progress))

    async def _all(self, progress: bool | None) -> list[Row]:
        await self.wait(progress=progress)
        return [row async for row in self.results()]

    async def stats(self) -> JobStats:
        """See `Job.stats`."""
        return await adrive(self._core.stats(self.id))

    async def explain(self) -> Explanation:
        """See `Job.explain`."""
        return await adrive(self._core.explain(self.id))

    async def dead_letters(self) -> list[DeadLetter]:
        """See `Job.dead_letters`."""
        return await adrive(self._core.dead_letters(self.id))

    async def retry(self, *queries: int) -> int:
        """See `Job.retry`."""
        return await adrive(self._core.retry(self.id, queries))

    async def stop(self) -> None:
        """See `Job.stop`."""
        await adrive(self._core.call("stop-job", "--", self.id))

    async def start(self) -> None:
        """See `Job.start`."""
        await adrive(self._core.call("start-job", "--", self.id))

    async def cancel(self) -> None:
        """See `Job.cancel`."""
        await adrive(self._core.call("cancel-job", "--yes", "--", self.id))

    async def delete(self) -> None:
        """See `Job.delete`."""
        await adrive(self._core.call("delete-job", "--yes", "--", self.id))
