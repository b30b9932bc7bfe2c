"""Counts and durations per model, in the shape of the protocol's statistics extension.

Durations are sums over rows of time spent in worker threads (compute_*), except `queue`: from a call's arrival to
the start of its first row, and `success` and `fail`: whole calls.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

BATCH_SIZES_MAX = 256
"""Distinct batch sizes kept apart; calls of further sizes count in the totals only."""

COMPUTE = ("compute_input", "compute_infer", "compute_output")


@dataclass
class Duration:
    """How often, and how long in all."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns

    def as_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass
class CallTimes:
    """What one call took, summed over its rows."""

    queue_ns: int = 0
    compute_ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COMPUTE, 0))


class ModelStatistics:
    """One model's figures since the server started. Owned by the event loop."""

    def __init__(self) -> None:
        self._rows = 0
        self._calls = 0
        self._last_ms = 0
        self._durations = {name: Duration() for name in ("success", "fail", "queue", *COMPUTE, "cache_hit")}
        self._batches: dict[int, dict[str, Duration]] = {}

    def succeeded(self, rows: int, total_ns: int, times: CallTimes) -> None:
        """Counts an answered call, whatever its rows' errors."""
        self._rows += rows
        self._calls += 1
        self._last_ms = time.time_ns() // 1_000_000
        self._durations["success"].add(total_ns)
        self._durations["queue"].add(times.queue_ns)
        if rows not in self._batches and len(self._batches) < BATCH_SIZES_MAX:
            self._batches[rows] = defaultdict(Duration)
        for name, ns in times.compute_ns.items():
            self._durations[name].add(ns)
            if rows in self._batches:
                self._batches[rows][name].add(ns)

    def failed(self, total_ns: int) -> None:
        """Counts a call that ended in an error or was given up by its client."""
        self._durations["fail"].add(total_ns)

    def as_json(self, name: str, version: str) -> dict[str, Any]:
        """One element of "model_stats"."""
        return {
            "name": name,
            "version": version,
            "last_inference": self._last_ms,
            "inference_count": self._rows,
            "execution_count": self._calls,
            "inference_stats": {key: value.as_json() for key, value in self._durations.items()},
            "batch_stats": [
                {"batch_size": size, **{key: value.as_json() for key, value in durations.items()}}
                for size, durations in sorted(self._batches.items())
            ],
        }
