"""What a training is given besides its data, and what it may say of itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METRICS_MAX = 64


@dataclass(frozen=True)
class Progress:
    """How far a training is: `step` of `steps`, and figures such as the loss at that point."""

    step: int
    steps: int
    metrics: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        fraction = round(self.step / self.steps, 6)
        return {"fraction": fraction, "step": self.step, "steps": self.steps, "metrics": self.metrics}


class TrainingRun:
    """What a training is given besides its data, and where it says how far it is."""

    def __init__(self, seed: int, artefact: Path, listener: Callable[[Progress], None]) -> None:
        self.seed = seed
        """From 0 to 2**32 - 1: what every random choice must come from."""
        self.artefact = artefact
        """The file to write, in a folder that is empty and may be used for other files too."""
        self._listener = listener

    def report(self, step: int, steps: int, **metrics: float) -> None:
        """Says that `step` of `steps` are done. Cheap enough for every epoch, not for every row."""
        if not 0 <= step <= steps or steps < 1:
            raise ValueError(f"report: step {step} of {steps}: want 0 <= step <= steps, and at least one step")
        self._listener(Progress(step, steps, checked_metrics(metrics)))


def checked_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Plain finite numbers, whatever number type a library gave. Raises ValueError."""
    if not isinstance(metrics, Mapping) or len(metrics) > METRICS_MAX:
        raise ValueError(f"metrics must be a dict of at most {METRICS_MAX} figures, not {type(metrics).__name__}")
    checked: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            number = int(value) if hasattr(value, "__index__") else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"metric {name!r} is {value!r}, not a number") from None
        if not isinstance(name, str) or not math.isfinite(number):
            raise ValueError(f"metric {name!r} is {number}: names must be text, figures finite")
        checked[name] = number
    return checked
