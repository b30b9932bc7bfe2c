"""Trains one model in this process: what the trainer process, the tools and the tests have in common.

A training writes one file, the artefact, and gives figures, the metrics. Both depend on data set and seed alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .training_data import Dataset
from .training_run import Progress, TrainingRun, checked_metrics

if TYPE_CHECKING:
    from .models.base import Model


@dataclass(frozen=True)
class Trained:
    """What came out."""

    artefact: Path
    metrics: dict[str, float]


def train_model(
    model: Model,
    out_dir: Path,
    seed: int = 0,
    dataset: Dataset | None = None,
    listener: Callable[[Progress], None] = lambda _progress: None,
) -> Trained:
    """Trains and checks what the model's own code left. Raises ValueError where it broke its promise."""
    random.seed(seed)  # for a model that forgets to
    run = TrainingRun(seed, out_dir / f"{model.name}{model.suffix}", listener)
    metrics = checked_metrics(model.train(dataset, run) or {})
    if not run.artefact.is_file() or run.artefact.stat().st_size == 0:
        raise ValueError(f"train of model {model.name} did not write run.artefact")
    return Trained(run.artefact, metrics)
