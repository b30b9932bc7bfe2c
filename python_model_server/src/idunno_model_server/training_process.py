"""The trainer process as the server sees it: started, listened to, ended. See `train.py` for what it prints.

Its error output is the server's own, so that it ends up in the same log.

Bounds: a training is ended after TRAINING_S_MAX; a line has at most LINE_BYTES_MAX.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

TRAINING_S_MAX = 900
LINE_BYTES_MAX = 64 * 1024


class TrainingError(Exception):
    """A training failed; the message is the trainer's own words where it could say any."""


@dataclass(frozen=True)
class Order:
    """What to train, and where."""

    model: str
    seed: int
    dataset: Path | None
    models_dir: Path
    out: Path

    def arguments(self) -> list[str]:
        words = [self.model, "--seed", str(self.seed), "--out", str(self.out), "--models-dir", str(self.models_dir)]
        if self.dataset is not None:
            words += ["--dataset", str(self.dataset)]
        if sys.platform == "linux":
            words += ["--die-with-parent", str(os.getpid())]
        return words


async def train_in_process(order: Order, on_progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Runs it to its end and returns {"artefact", "metrics"}. Cancelling it kills the process. Raises TrainingError."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"{__package__}.train",
        *order.arguments(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        # The order of sets and dicts of text must not differ from one run to the next.
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    try:
        async with asyncio.timeout(TRAINING_S_MAX):
            assert process.stdout is not None
            outcome = await _listen(process.stdout, on_progress)
            await process.wait()
    except TimeoutError:
        raise TrainingError(f"training took longer than {TRAINING_S_MAX} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if "trained" not in outcome:
        raise TrainingError(outcome.get("failed") or f"the trainer ended with code {process.returncode}")
    return outcome["trained"]


async def _listen(lines: asyncio.StreamReader, on_progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The last line: {} where the process ended without one of its own."""
    outcome: dict[str, Any] = {}
    try:
        async for line in lines:
            value = orjson.loads(line)
            if "progress" in value:
                on_progress(value["progress"])
            else:
                outcome = value
    except ValueError as error:
        raise TrainingError(f"the trainer's output cannot be read: {error}") from None
    return outcome
