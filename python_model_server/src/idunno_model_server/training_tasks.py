"""Training tasks: one runs at a time, the others wait their turn.

Bounds: one unfinished task per model; TASKS_MAX tasks are kept, and the oldest finished ones are dropped with their
artefacts. `training_process` bounds a single training.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from .dialect import AS_FOUND, ReadOptions
from .errors import ApiError, MissingPackageError
from .models import Model
from .runners.process_family import Families
from .training_process import METRICS_FILE, TrainingRequest, train_in_process
from .training_result import TrainingResult
from .training_run import Progress
from .user_code import model_failure

TASKS_MAX = 32


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
    model: Model
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

    def as_json(self) -> dict[str, Any]:
        seconds = (self.ended_s or time.monotonic()) - self.started_s
        progress = self.progress.as_json()
        value = {"task": self.id, "model": self.model.name, "seed": self.seed, "state": self.state}
        value |= {"seconds": round(seconds, 3), "progress": progress}
        if self.dataset is not None:
            value["dataset"] = str(self.dataset)
        if self.reason:
            value["reason"] = self.reason
        if self.result is not None:
            progress["fraction"] = 1.0  # also for a model that reported no last step
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

    def start(self, model: Model, seed: int, dataset: Path | None, reading: ReadOptions = AS_FOUND) -> TrainingTask:
        """Starts a training, or returns the model's unfinished one.

        Raises ApiError 400 if the model and the dataset do not fit together, 409 if the unfinished training has
        another seed or dataset, 503 if packaged files that the training reads are not installed.
        """
        for task in self._tasks.values():
            if task.model is model and task.state == TaskState.RUNNING:
                if (task.seed, task.dataset, task.reading) != (seed, dataset, reading):
                    on = f" on {task.dataset}" if task.dataset else ""
                    raise ApiError(409, f"model {model.name} is already being trained with seed {task.seed}{on}")
                return task
        _check_dataset(model, dataset)
        try:
            model.require_sources()
        except MissingPackageError as error:
            raise ApiError(503, f"model {model.name} cannot be trained: {error}") from None
        except BaseException as error:  # of a user's model, in the server's own process
            failure = model_failure(error, inspect.getsourcefile(type(model)))
            message = f"model {model.name} cannot be trained: {failure.message}"
            raise ApiError(500, message, traceback=failure.traceback) from None
        self._drop_oldest()
        task_id = secrets.token_hex(8)
        task = TrainingTask(task_id, model, seed, dataset, self._root / task_id, reading=reading)
        self._tasks[task_id] = task
        run = asyncio.create_task(self._run(task))
        self._runs[task_id] = run
        run.add_done_callback(lambda _run: self._runs.pop(task_id))
        return task

    async def cancel(self, task_id: str) -> TrainingTask:
        """Ends an unfinished training, which then counts as failed. A finished one is left as it is."""
        task = self.task(task_id)
        run = self._runs.get(task_id)
        if run is not None:
            run.cancel()
            await asyncio.wait([run])
        return task

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
            del self._tasks[task.id]
            shutil.rmtree(task.folder, ignore_errors=True)

    async def _run(self, task: TrainingTask) -> None:
        def on_progress(progress: Progress) -> None:
            task.progress = progress

        name, folder = task.model.name, task.folder
        network = type(task.model).network
        request = TrainingRequest(name, task.seed, task.dataset, self._models_dir, folder, task.reading, network)
        try:
            async with self._one_at_a_time:
                task.started_s = time.monotonic()
                task.folder.mkdir()
                task.result = await train_in_process(request, on_progress, self._families, self._hidden)
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


def _check_dataset(model: Model, dataset: Path | None) -> None:
    if dataset is None and model.dataset == "required":
        raise ApiError(400, f'model {model.name} needs a dataset: send {{"dataset": "/PATH"}}')
    if dataset is not None and model.dataset == "none":
        raise ApiError(400, f"model {model.name} takes no dataset: it brings its own data")
    if dataset is not None and not (dataset.is_absolute() and dataset.exists()):
        raise ApiError(400, f"dataset {dataset} must be the absolute path of a folder or file on this machine")
