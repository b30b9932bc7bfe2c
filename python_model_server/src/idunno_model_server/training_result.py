"""One training run in this process, and the checks on what it made.

A run writes one file, the artefact, and returns figures, the metrics. For a model that declares `reproducible`, both
depend on the dataset and seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import TrainingError
from .training_run import Progress, TrainingRun, checked_metrics

if TYPE_CHECKING:
    from .models.base import Model
    from .training_data import Dataset


@dataclass(frozen=True)
class TrainingResult:
    """The artefact and metrics of a finished run."""

    artefact: Path
    metrics: dict[str, float]


def train_model(
    model: Model,
    out_dir: Path,
    seed: int = 0,
    dataset: Dataset | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
    folder: Path | None = None,
) -> TrainingResult:
    """Trains a model into `out_dir` and checks the result. Raises TrainingError if there is no artefact."""
    random.seed(seed)  # for models that use the global generator without seeding it
    run = TrainingRun(seed, out_dir / f"{model.name}{model.suffix}", on_progress, folder)
    metrics = checked_metrics(model.train(dataset, run) or {})
    if not run.artefact.is_file() or run.artefact.stat().st_size == 0:
        raise TrainingError(f"train of model {model.name} did not write run.artefact")
    return TrainingResult(run.artefact, metrics)
