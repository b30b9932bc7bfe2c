"""What a client does, as steps: see `_steps`. Commands are those of the command line, and so are their documents."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from . import _native
from ._errors import Error, IncompleteWarning, NotFoundError, PartialError, TimeoutError, UnreachableError
from ._inputs import Inputs, inputs_of
from ._models import is_model, write_package
from ._progress import Bar
from ._steps import Steps
from ._types import (
    AddedModel,
    DeadLetter,
    Explanation,
    File,
    JobStats,
    Member,
    Model,
    RunOptions,
    StoredFile,
)

HALTED = frozenset(("stopped", "paused", "cancelled"))
_LOOK_PERIOD_S = 0.25
_PATIENCE_S = 0.02


@dataclass(frozen=True)
class JobOptions:
    """How a job runs: `RunOptions` as words of the command line."""

    name: str | None = None
    batch_size: int | str | None = None
    params: Mapping[str, Any] | None = None
    weight: int | None = None
    limit: int | None = None
    sample: int | None = None
    only_new: bool | None = None
    max_failed: int | str | None = None
    after: str | None = None
    on_end: str | None = None
    input_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    keep: str | Sequence[str] | None = None
    dataset: str | None = None

    @classmethod
    def of(cls, options: RunOptions) -> JobOptions:
        """The arguments of `run`. Raises TypeError for a name that is none of them.

        >>> JobOptions.of({"weight": 2, "after": "job-1", "name": None}).of_job()
        ['--weight=2']
        >>> JobOptions.of({"patience": 2})  # type: ignore[typeddict-unknown-key]
        Traceback (most recent call last):
            ...
        TypeError: run() got an unexpected keyword argument 'patience'
        """
        unknown = sorted(set(options) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise TypeError(f"run() got an unexpected keyword argument {unknown[0]!r}")
        after = options.get("after")
        job = after if after is None or isinstance(after, str) else after.id
        known: dict[str, Any] = {**options, "after": job}
        return cls(**known)

    def of_job(self) -> list[str]:
        """The words of `add-job`."""
        words = _options(
            name=self.name,
            batch_size=self.batch_size,
            weight=self.weight,
            input_column=self.input_column,
            label_column=self.label_column,
            id_column=self.id_column,
            keep=_kept(self.keep),
        )
        return words + [f"--param={name}={_parameter(value)}" for name, value in (self.params or {}).items()]

    def of_start(self) -> list[str]:
        """The words of `start-job`.

        >>> JobOptions.of({"limit": 3, "only_new": True}).of_start()
        ['--limit=3', '--only-new']
        """
        words = _options(
            limit=self.limit,
            sample=self.sample,
            max_failed=self.max_failed,
            after=self.after,
            on_end=self.on_end,
        )
        return [*words, "--only-new"] if self.only_new else words


def _options(**values: Any) -> list[str]:
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]


def _parameter(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _kept(keep: str | Sequence[str] | None) -> str | None:
    if keep is None or keep == "all":
        return keep
    names = [keep] if isinstance(keep, str) else keep
    return ",".join('"' + name.replace('"', '""') + '"' for name in names)


class Core:
    """A cluster."""

    def __init__(
        self,
        cluster: str | Sequence[str] | None,
        context: str | None,
        identity: str | os.PathLike[str] | None,
        dir: str | os.PathLike[str] | None,
        timeout: float | None,
    ) -> None:
        if cluster is not None and not isinstance(cluster, str):
            cluster = ",".join(cluster)
        options = _options(
            cluster=cluster,
            context=context,
            identity=os.fspath(identity) if identity is not None else None,
            dir=os.fspath(dir) if dir is not None else None,
            timeout=max(1, round(timeout)) if timeout is not None else None,
        )
        self.native = _native.Client(options)

    @property
    def label(self) -> str:
        """The cluster's name for people."""
        return self.native.describe()[0]

    def call(self, *words: str | os.PathLike[str]) -> Steps[Any]:
        """Runs a command, and returns its document without the fields that name its kind."""
        document, incomplete = yield self.native.run([os.fspath(word) for word in words])
        if incomplete:
            warnings.warn(incomplete, IncompleteWarning, stacklevel=5)
        if document is None:
            return None
        fields = json.loads(document)
        del fields["apiVersion"], fields["kind"]
        return fields

    def _items(self, *words: str) -> Steps[list[Any]]:
        fields = yield from self.call(*words)
        return cast("list[Any]", fields["items"])

    # The store.

    def put(self, data: Any, name: str) -> Steps[StoredFile]:
        """`put`."""
        made = None if isinstance(data, (str, os.PathLike)) else (yield lambda: _temporary(data))
        try:
            fields = yield from self.call("put", "--", made or data, name)
        finally:
            if made is not None:
                made.unlink(missing_ok=True)
        return cast("StoredFile", fields)

    def get(self, name: str, target: Any, version: int | None) -> Steps[bytes | None]:
        """`get`."""
        if isinstance(target, (str, os.PathLike)):
            # As a program expects: a file that it names is replaced.
            yield from self.call("get", "--force", *_options(version=version), "--", name, target)
            return None
        folder = Path(tempfile.mkdtemp(prefix="idunno-"))
        try:
            path = folder / "file"
            yield from self.call("get", *_options(version=version), "--", name, path)
            if target is None:
                return cast("bytes", (yield path.read_bytes))
            yield lambda: _copy(path, target)
            return None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def ls(self, prefix: str) -> Steps[list[File]]:
        """`ls`."""
        try:
            return (yield from self._items("ls", "--all", *(["--", prefix] if prefix else [])))
        except NotFoundError:
            return []

    def delete(self, name: str) -> Steps[int]:
        """`delete`."""
        fields = yield from self.call("delete", "--", name)
        return cast("int", fields["versions"])

    # Jobs.

    def submit(self, model: Any, data: Any, options: JobOptions) -> Steps[str]:
        """Stores the data, adds the job and starts it; returns its number."""
        if is_model(model):
            added = yield from self.add_model(model, None)
            model = added["model"]
        inputs = yield from self._store(data, options.dataset)
        is_kept = options.dataset is not None or isinstance(data, str)
        job = None
        try:
            words = [f"--dataset={inputs.dataset}", *options.of_job()]
            job = (yield from self.call("add-job", *words, "--", model))["job"]
            yield from self.call("start-job", *options.of_start(), "--", job)
        except BaseException:
            if job is not None:
                yield from self._attempt("delete-job", "--yes", "--", job)
            if not is_kept:
                yield from self._forget(inputs)
            raise
        if not is_kept:
            # A started job keeps its inputs for as long as it needs them.
            yield from self._forget(inputs)
        return cast("str", job)

    def _store(self, data: Any, dataset: str | None) -> Steps[Inputs]:
        if isinstance(data, str):
            return Inputs(data)
        name = dataset or self._new_dataset()
        if isinstance(data, Path) and data.is_dir():
            yield from self.call("populate-test-data", f"--dataset={name}", "--", data)
            return Inputs(name)
        inputs: Inputs = yield lambda: inputs_of(data, name)
        try:
            yield self.native.put_files(inputs.files)
        finally:
            inputs.forget()
        return inputs

    def _new_dataset(self) -> str:
        folders = self.native.describe()[2]
        folder = folders[0].rstrip("/") + "/" if folders else ""
        return f"{folder}inputs/{uuid.uuid4().hex[:16]}"

    def _forget(self, inputs: Inputs) -> Steps[None]:
        """Deletes a dataset that was stored for one job only."""
        try:
            names = [name for name, _ in inputs.files]
            if not names:
                names = [file["name"] for file in (yield from self.ls(inputs.dataset + "/"))]
            yield self.native.delete_files(names)
        except Error as error:
            warnings.warn(f"the inputs of a job stay in the store, below {inputs.dataset}: {error}", stacklevel=5)

    def _attempt(self, *words: str) -> Steps[None]:
        with contextlib.suppress(Error):
            yield from self.call(*words)

    def stats(self, job: str) -> Steps[JobStats]:
        """`get-job-stats`."""
        found = yield from self._items("get-job-stats", "--", job)
        return cast("JobStats", found[0])

    def jobs(self) -> Steps[list[JobStats]]:
        """`get-job-stats` of all."""
        return (yield from self._items("get-job-stats"))

    def wait(self, job: str, timeout: float | None, progress: bool | None) -> Steps[JobStats]:
        """Waits until a job is done; a cluster without a coordinator is waited out."""
        until = None if timeout is None else time.monotonic() + timeout
        late = "no answer of the cluster"
        with Bar(job, progress) as bar:
            while True:
                stats = yield from self._look(job, until)
                if stats is not None:
                    bar.show(stats)
                    if stats["state"] == "done":
                        return stats
                    if stats["state"] in HALTED:
                        reason = f": {stats['reason']}" if stats["reason"] else ""
                        raise PartialError(f"{job} is {stats['state']}{reason}")
                    answered = stats["done"] + stats["dead_letters"]
                    late = f"{answered} of {stats['submitted']} queries of {job} are done, and it goes on"
                left = _LOOK_PERIOD_S if until is None else until - time.monotonic()
                if left <= 0:
                    raise TimeoutError(late)
                yield _native.sleep(min(left, _LOOK_PERIOD_S))

    def _look(self, job: str, until: float | None) -> Steps[JobStats | None]:
        operation = self.native.run(["get-job-stats", "--", job])
        while until is not None and not operation.wait(0.0):
            if time.monotonic() >= until:
                operation.cancel()
                return None
            yield _native.sleep(_PATIENCE_S)
        try:
            document, _ = yield operation
        except UnreachableError:
            return None
        return cast("JobStats", json.loads(document)["items"][0])

    def explain(self, job: str) -> Steps[Explanation]:
        """`explain`."""
        return cast("Explanation", (yield from self.call("explain", "--", job)))

    def dead_letters(self, job: str) -> Steps[list[DeadLetter]]:
        """`dead-letters list`."""
        return (yield from self._items("dead-letters", "list", "--", job))

    def retry(self, job: str, queries: Sequence[int]) -> Steps[int]:
        """`dead-letters retry`."""
        fields = yield from self.call("dead-letters", "retry", "--", job, *map(str, queries))
        return cast("int", fields["queries"])

    # Models and members.

    def members(self) -> Steps[list[Member]]:
        """`list_mem`."""
        return (yield from self._items("list_mem"))

    def models(self) -> Steps[list[Model]]:
        """`get-models`."""
        return (yield from self._items("get-models"))

    def events(self) -> Steps[_native.Stream]:
        """A stream of events, once the cluster has answered: what happens from then on is seen."""
        stream = self.native.events()
        # It begins with no event.
        yield stream.next()
        return stream

    def add_model(self, model: Any, name: str | None) -> Steps[AddedModel]:
        """`model add`."""
        made = None
        if not isinstance(model, (str, os.PathLike)):
            made = Path(tempfile.mkdtemp(prefix="idunno-"))
        try:
            if made is not None:
                path: Any = made / "model"
                shipped = yield lambda: write_package(model, path)
                name = name or shipped
            else:
                path = model
            python = [] if "IDUNNO_MODEL_SERVER_PYTHON" in os.environ else [f"--python={sys.executable}"]
            fields = yield from self.call("model", "add", *_options(name=name), *python, "--", path)
        finally:
            if made is not None:
                shutil.rmtree(made, ignore_errors=True)
        return cast("AddedModel", fields)

    def train(self, models: Sequence[str], dataset: str | None, seed: int | None) -> Steps[None]:
        """`train-start --wait`."""
        yield from self.call("train-start", "--wait", *_options(dataset=dataset, seed=seed), "--", *models)


def _temporary(data: Any) -> Path:
    """A file with the data: bytes, or what a binary file gives."""
    if not isinstance(data, (bytes, bytearray, memoryview)) and not hasattr(data, "read"):
        raise TypeError(f"cannot store a {type(data).__name__}: pass bytes, a path, or a file opened for bytes")
    if isinstance(data, io.TextIOBase):
        raise TypeError("cannot store a file opened for text: open it with 'rb'")
    descriptor, path = tempfile.mkstemp(prefix="idunno-")
    with os.fdopen(descriptor, "wb") as file:
        if isinstance(data, (bytes, bytearray, memoryview)):
            file.write(data)
        else:
            shutil.copyfileobj(data, file)
    return Path(path)


def _copy(path: Path, target: IO[bytes]) -> None:
    with path.open("rb") as file:
        shutil.copyfileobj(file, target)
