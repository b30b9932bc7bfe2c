"""The `run` argument of a model's `train`: where it writes, its seed, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

METRICS_MAX = 64


@dataclass(frozen=True)
class Progress:
    """`step` of `steps` are done, with figures as of then, such as the loss. All zero before the first report."""

    step: int = 0
    steps: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        fraction = round(self.step / self.steps, 6) if self.steps else 0.0
        return {"fraction": fraction, "step": self.step, "steps": self.steps, "metrics": self.metrics}


class TrainingRun:
    """The `run` argument of `Model.train`."""

    def __init__(
        self, seed: int, artefact: Path, on_progress: Callable[[Progress], None], folder: Path | None = None
    ) -> None:
        self.seed = seed
        """From 0 to 2**32 - 1. Every random choice of a model that declares `reproducible` must derive from it."""
        self.folder = folder
        """The folder of the model's file, for weights beside it. To be read only. None for a predefined model."""
        self.artefact = artefact
        """The file to write. Its folder is empty and may be used for scratch files."""
        self._on_progress = on_progress

    def report(self, step: int, steps: int, **metrics: float) -> None:
        """Reports that `step` of `steps` are done. Cheap enough for every epoch, not for every row."""
        if not 0 <= step <= steps or steps < 1:
            raise ValueError(f"report: step {step} of {steps} is out of range; expected 0 <= step <= steps, steps >= 1")
        self._on_progress(Progress(step, steps, checked_metrics(metrics)))


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Converts any library's number types to plain finite numbers. Raises ValueError."""
    if not isinstance(metrics, Mapping) or len(metrics) > METRICS_MAX:
        raise ValueError(f"metrics must be a dict of at most {METRICS_MAX} figures, not {type(metrics).__name__}")
    checked: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            number = int(value) if hasattr(value, "__index__") else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"metric {name!r} is {value!r}, not a number") from None
        if not isinstance(name, str) or not math.isfinite(number):
            raise ValueError(f"metric {name!r} is {number}: names must be strings and figures finite")
        checked[name] = number
    return checked
