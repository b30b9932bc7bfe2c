"""Training tasks: one runs at a time, in a process of its own; further ones wait their turn.

Bounds: one unfinished task per model; TASKS_MAX tasks are remembered, the oldest finished ones and their artefacts
are forgotten first; `training_process` bounds what one training may take.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ApiError, MissingPackageError
from .models import Model
from .train import METRICS_FILE
from .training_process import Order, train_in_process

TASKS_MAX = 32
NO_PROGRESS = {"fraction": 0.0, "step": 0, "steps": 0, "metrics": {}}


@dataclass
class Task:
    """One training. `state` is "running" (also while it waits its turn), "done" or "failed"."""

    id: str
    model: Model
    seed: int
    dataset: Path | None
    folder: Path
    state: str = "running"
    reason: str = ""
    progress: dict[str, Any] = field(default_factory=lambda: dict(NO_PROGRESS))
    artefact: Path | None = None
    metrics: dict[str, float] | None = None
    started_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        seconds = (self.ended_s or time.monotonic()) - self.started_s
        value = {"task": self.id, "model": self.model.name, "seed": self.seed, "state": self.state}
        value |= {"seconds": round(seconds, 3), "progress": self.progress}
        if self.dataset is not None:
            value["dataset"] = str(self.dataset)
        if self.reason:
            value["reason"] = self.reason
        if self.artefact is not None:
            value |= {"artefact_bytes": self.artefact.stat().st_size, "metrics": self.metrics}
        return value

    def results(self) -> tuple[Path, Path]:
        """The artefact and the metrics document. Raises ApiError 409 before the training is done."""
        if self.artefact is None:
            raise ApiError(409, f"task {self.id} has no artefact: it is {self.state}")
        return self.artefact, self.folder / METRICS_FILE


class Training:
    """Owned by the event loop."""

    def __init__(self, work_dir: Path, models_dir: Path) -> None:
        self._models_dir = models_dir
        self._root = work_dir / "trained"
        shutil.rmtree(self._root, ignore_errors=True)  # tasks do not outlive the process that knew them
        self._root.mkdir(parents=True)
        self._tasks: dict[str, Task] = {}
        self._runs: dict[str, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()

    def start(self, model: Model, seed: int, dataset: Path | None) -> Task:
        """Starts a training, or returns the model's unfinished one.

        Raises ApiError 400 where the model and the data set do not go together, 409 if the unfinished training has
        another seed or data set, 503 if the weights or data that it reads are not installed.
        """
        for task in self._tasks.values():
            if task.model is model and task.state == "running":
                if (task.seed, task.dataset) != (seed, dataset):
                    on = f" on {task.dataset}" if task.dataset else ""
                    raise ApiError(409, f"model {model.name} is being trained with seed {task.seed}{on}")
                return task
        _check_dataset(model, dataset)
        try:
            model.require_sources()
        except MissingPackageError as error:
            raise ApiError(503, f"model {model.name} cannot be trained: {error}") from None
        self._forget_oldest()
        task_id = secrets.token_hex(8)
        task = Task(task_id, model, seed, dataset, self._root / task_id)
        self._tasks[task_id] = task
        run = asyncio.create_task(self._run(task))
        self._runs[task_id] = run
        run.add_done_callback(lambda _run: self._runs.pop(task_id))
        return task

    async def cancel(self, task_id: str) -> Task:
        """Ends an unfinished training, which then counts as failed; does nothing to a finished one."""
        task = self.task(task_id)
        run = self._runs.get(task_id)
        if run is not None:
            run.cancel()
            await asyncio.wait([run])
        return task

    def task(self, task_id: str) -> Task:
        """Raises ApiError 404."""
        task = self._tasks.get(task_id)
        if task is None:
            raise ApiError(404, f"unknown task {task_id!r}")
        return task

    async def close(self) -> None:
        """Ends running trainings: their result would have nowhere to go."""
        runs = list(self._runs.values())
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    def _forget_oldest(self) -> None:
        finished = [task for task in self._tasks.values() if task.state != "running"]
        for task in finished[: max(0, len(self._tasks) + 1 - TASKS_MAX)]:
            del self._tasks[task.id]
            shutil.rmtree(task.folder, ignore_errors=True)

    async def _run(self, task: Task) -> None:
        def on_progress(progress: dict[str, Any]) -> None:
            task.progress = progress

        order = Order(task.model.name, task.seed, task.dataset, self._models_dir, task.folder)
        try:
            async with self._one_at_a_time:
                task.started_s = time.monotonic()
                task.folder.mkdir()
                trained = await train_in_process(order, on_progress)
                task.progress = {**task.progress, "fraction": 1.0}
                task.metrics, task.artefact = trained["metrics"], task.folder / trained["artefact"]
                task.state = "done"
        except asyncio.CancelledError:
            task.state, task.reason = "failed", "cancelled"
            raise
        except Exception as error:
            task.state, task.reason = "failed", str(error)
        finally:
            task.ended_s = time.monotonic()


def _check_dataset(model: Model, dataset: Path | None) -> None:
    if dataset is None and model.dataset == "required":
        raise ApiError(400, f'model {model.name} is trained on a data set: give {{"dataset": "/PATH"}}')
    if dataset is not None and model.dataset == "none":
        raise ApiError(400, f"model {model.name} brings its own data and takes no data set")
    if dataset is not None and not (dataset.is_absolute() and dataset.exists()):
        raise ApiError(400, f"data set {dataset} must be the absolute path of a folder or file on this machine")
