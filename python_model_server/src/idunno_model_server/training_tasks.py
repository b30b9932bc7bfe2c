"""Training tasks: one runs at a time, the others wait their turn.

Bounds: one unfinished task per model; TASKS_MAX tasks are kept, and the oldest finished ones are dropped with their
artefacts, unless the member has them forgotten before. `training_process` bounds a single training.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from .dialect import AS_FOUND, ReadOptions
from .errors import ApiError, MissingPackageError
from .models import Model
from .models.base import DatasetUse
from .runners.output_tail import OutputTail
from .runners.process_family import Families
from .training_child import METRICS_FILE
from .training_process import TrainingRequest, end_strays, train_in_process
from .training_result import TrainingResult
from .training_run import Progress
from .user_code import model_failure

TASKS_MAX = 32


@dataclass(frozen=True)
class TrainingSubject:
    """What is trained: a model of this server, or a package in an environment of its own."""

    name: str
    dataset: DatasetUse
    reproducible: bool
    model: Model | None = None
    package: Path | None = None
    python: Path = Path(sys.executable)
    environment: str | None = None
    """The key of the package's environment, if it brings one."""
    network: bool = False
    """Whether it may use the network."""

    @classmethod
    def of_model(cls, model: Model) -> TrainingSubject:
        network = type(model).network
        return cls(model.name, model.dataset, model.reproducible, model, network=network)


class TaskState(StrEnum):
    """As shown in JSON."""

    RUNNING = "running"
    """Also while it waits its turn."""
    DONE = "done"
    FAILED = "failed"


@dataclass
class TrainingTask:
    """One training, from request to result."""

    id: str
    subject: TrainingSubject
    seed: int
    dataset: Path | None
    folder: Path
    state: TaskState = TaskState.RUNNING
    reason: str = ""
    progress: Progress = field(default_factory=Progress)
    result: TrainingResult | None = None
    started_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None
    reading: ReadOptions = AS_FOUND
    lines: int = 0
    """How many the model has printed."""
    output: OutputTail = field(init=False)

    def __post_init__(self) -> None:
        self.output = OutputTail(self._printed)

    def _printed(self, line: str) -> None:
        self.lines += 1
        print(f"training {self.subject.name}: {line}", file=sys.stderr, flush=True)

    def as_json(self) -> dict[str, Any]:
        seconds = (self.ended_s or time.monotonic()) - self.started_s
        progress = self.progress.as_json()
        value = {"task": self.id, "model": self.subject.name, "seed": self.seed, "state": self.state}
        value |= {"seconds": round(seconds, 3), "progress": progress}
        value |= {"lines": self.lines, "last_lines": list(self.output.lines)}
        if self.dataset is not None:
            value["dataset"] = str(self.dataset)
        if self.reason:
            value["reason"] = self.reason
        if self.result is not None:
            progress["fraction"] = 1.0  # also for a model that reported no last step
            value["artefact"] = self.result.artefact.name
            value["artefact_bytes"] = self.result.artefact.stat().st_size
            value["metrics"] = self.result.metrics
        return value

    def artefact(self) -> Path:
        """Raises ApiError 409 unless the training is done."""
        return self._finished().artefact

    def metrics_document(self) -> Path:
        """Raises ApiError 409 unless the training is done."""
        self._finished()
        return self.folder / METRICS_FILE

    def _finished(self) -> TrainingResult:
        if self.result is None:
            raise ApiError(409, f"task {self.id} has no artefact: it is {self.state}")
        return self.result


class TrainingTasks:
    """All tasks of this server. Owned by the event loop."""

    def __init__(self, work_dir: Path, models_dir: Path, families: Families, hidden: Sequence[Path] = ()) -> None:
        self._families = families
        self._hidden = hidden
        self._models_dir = models_dir
        self._root = work_dir / "trained"
        shutil.rmtree(self._root, ignore_errors=True)  # tasks do not outlive the process that started them
        self._root.mkdir(parents=True)
        self._tasks: dict[str, TrainingTask] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    def start(
        self, subject: TrainingSubject, seed: int, dataset: Path | None, reading: ReadOptions = AS_FOUND
    ) -> TrainingTask:
        """Starts a training, or returns the model's unfinished one.

        Raises ApiError 400 if the model and the dataset do not fit together, 409 if the unfinished training has
        another version, seed or dataset, 503 if packaged files that the training reads are not installed.
        """
        for task in self._tasks.values():
            if task.subject.name == subject.name and task.state == TaskState.RUNNING:
                if (task.subject, task.seed, task.dataset, task.reading) != (subject, seed, dataset, reading):
                    on = f" on {task.dataset}" if task.dataset else ""
                    raise ApiError(409, f"model {subject.name} is already being trained with seed {task.seed}{on}")
                return task
        check_dataset_use(subject.name, subject.dataset, has_dataset=dataset is not None)
        if dataset is not None and not (dataset.is_absolute() and dataset.exists()):
            raise ApiError(400, f"dataset {dataset} must be the absolute path of a folder or file on this machine")
        if subject.model is not None:
            _require_sources(subject.model)
        self._drop_oldest()
        task_id = secrets.token_hex(8)
        task = TrainingTask(task_id, subject, seed, dataset, self._root / task_id, reading=reading)
        self._tasks[task_id] = task
        run = asyncio.create_task(self._run(task))
        self._runs[task_id] = run
        run.add_done_callback(lambda _run: self._runs.pop(task_id))
        return task

    def environments(self) -> set[str]:
        """The keys of those that unfinished trainings use."""
        running = (task for task in self._tasks.values() if task.state == TaskState.RUNNING)
        return {task.subject.environment for task in running if task.subject.environment}

    async def end(self, task_id: str) -> dict[str, Any]:
        """Cancels an unfinished training, which then counts as failed. A finished one is forgotten with its artefact.

        Returns the task as JSON.
        """
        task = self.task(task_id)
        is_finished = task.state != TaskState.RUNNING
        run = self._runs.get(task_id)
        if run is not None:
            if not is_finished:
                run.cancel()
            await asyncio.wait([run])
        value = task.as_json()
        if is_finished:
            self._drop(task)
        return value

    def task(self, task_id: str) -> TrainingTask:
        """Raises ApiError 404."""
        task = self._tasks.get(task_id)
        if task is None:
            raise ApiError(404, f"unknown task {task_id!r}")
        return task

    async def close(self) -> None:
        """Ends running trainings."""
        runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    def _drop_oldest(self) -> None:
        finished = [task for task in self._tasks.values() if task.state != TaskState.RUNNING]
        for task in finished[: max(0, len(self._tasks) + 1 - TASKS_MAX)]:
            self._drop(task)

    def _drop(self, task: TrainingTask) -> None:
        self._tasks.pop(task.id, None)
        shutil.rmtree(task.folder, ignore_errors=True)

    async def _run(self, task: TrainingTask) -> None:
        def on_progress(progress: Progress) -> None:
            task.progress = progress

        subject = task.subject
        request = TrainingRequest(
            subject.name,
            task.seed,
            task.dataset,
            self._models_dir,
            task.folder,
            task.reading,
            subject.package,
            subject.python,
            subject.reproducible,
            subject.network,
        )
        try:
            async with self._one_at_a_time:
                task.started_s = time.monotonic()
                task.folder.mkdir()
                task.result = await train_in_process(request, on_progress, self._families, task.output, self._hidden)
                task.state = TaskState.DONE
        except asyncio.CancelledError:
            task.state = TaskState.FAILED
            task.reason = "cancelled"
            raise
        except Exception as error:
            task.state = TaskState.FAILED
            task.reason = str(error)
        finally:
            task.ended_s = time.monotonic()
            await asyncio.shield(end_strays(self._families))


def check_dataset_use(name: str, use: DatasetUse, *, has_dataset: bool) -> None:
    """Raises ApiError 400 if a model needs a dataset and gets none, or the other way round."""
    if use == "required" and not has_dataset:
        raise ApiError(400, f"model {name} needs a dataset: name one with --dataset")
    if use == "none" and has_dataset:
        raise ApiError(400, f"model {name} takes no dataset: it brings its own data")


def _require_sources(model: Model) -> None:
    """Raises ApiError."""
    try:
        model.require_sources()
    except MissingPackageError as error:
        raise ApiError(503, f"model {model.name} cannot be trained: {error}") from None
    except BaseException as error:  # of a user's model, in the server's own process
        failure = model_failure(error, inspect.getsourcefile(type(model)))
        message = f"model {model.name} cannot be trained: {failure.message}"
        raise ApiError(500, message, traceback=failure.traceback) from None
