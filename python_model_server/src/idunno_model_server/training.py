"""Training tasks: one runs at a time, in a process of its own; further ones wait their turn.

Bounds: one unfinished task per model; TASKS_MAX tasks are remembered, the oldest finished ones and their artefacts
are forgotten first; a training is ended after TRAINING_S_MAX.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ApiError, MissingPackageError
from .models import Model

TASKS_MAX = 32
TRAINING_S_MAX = 900
STDERR_BYTES_MAX = 4096


@dataclass
class Task:
    """One training. `state` is "running" (also while it waits its turn), "done" or "failed"."""

    id: str
    model: Model
    seed: int
    folder: Path
    state: str = "running"
    reason: str = ""
    artefact: Path | None = None
    started_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        seconds = (self.ended_s or time.monotonic()) - self.started_s
        value = {"task": self.id, "model": self.model.name, "state": self.state, "seconds": round(seconds, 3)}
        if self.reason:
            value["reason"] = self.reason
        if self.artefact is not None:
            value["artefact_bytes"] = self.artefact.stat().st_size
        return value


class Training:
    """Owned by the event loop."""

    def __init__(self, work_dir: Path) -> None:
        self._root = work_dir / "trained"
        shutil.rmtree(self._root, ignore_errors=True)  # tasks do not outlive the process that knew them
        self._root.mkdir(parents=True)
        self._tasks: dict[str, Task] = {}
        self._runs: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    def start(self, model: Model, seed: int) -> Task:
        """Starts a training, or returns the model's unfinished one.

        Raises ApiError 409 if that one has another seed, 503 if the weights or data it reads are not installed.
        """
        for task in self._tasks.values():
            if task.model is model and task.state == "running":
                if task.seed != seed:
                    raise ApiError(409, f"model {model.name} is being trained with seed {task.seed}")
                return task
        try:
            model.require_sources()
        except MissingPackageError as error:
            raise ApiError(503, f"model {model.name} cannot be trained: {error}") from None
        self._forget_oldest()
        task_id = secrets.token_hex(8)
        task = Task(task_id, model, seed, self._root / task_id)
        self._tasks[task_id] = task
        run = asyncio.create_task(self._run(task))
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        return task

    def task(self, task_id: str) -> Task:
        """Raises ApiError 404."""
        task = self._tasks.get(task_id)
        if task is None:
            raise ApiError(404, f"unknown task {task_id!r}")
        return task

    async def close(self) -> None:
        """Ends running trainings: their result would have nowhere to go."""
        for run in list(self._runs):
            run.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)

    def _forget_oldest(self) -> None:
        finished = [task for task in self._tasks.values() if task.state != "running"]
        for task in finished[: max(0, len(self._tasks) + 1 - TASKS_MAX)]:
            del self._tasks[task.id]
            shutil.rmtree(task.folder, ignore_errors=True)

    async def _run(self, task: Task) -> None:
        try:
            async with self._one_at_a_time:
                task.started_s = time.monotonic()
                task.artefact = await _train_in_process(task)
                task.state = "done"
        except Exception as error:
            task.state, task.reason = "failed", str(error)
        finally:
            task.ended_s = time.monotonic()


async def _train_in_process(task: Task) -> Path:
    """Raises RuntimeError with the trainer's own words."""
    task.folder.mkdir()
    arguments = [task.model.name, "--seed", str(task.seed), "--out", str(task.folder)]
    if sys.platform == "linux":
        arguments += ["--die-with-parent", str(os.getpid())]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"{__package__}.train",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TRAINING_S_MAX):
            output, errors = await process.communicate()
    except TimeoutError:
        raise RuntimeError(f"training took longer than {TRAINING_S_MAX} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        words = errors[-STDERR_BYTES_MAX:].decode(errors="replace").strip()
        raise RuntimeError(words or f"the trainer ended with code {process.returncode}")
    return task.folder / output.decode().splitlines()[-1]
