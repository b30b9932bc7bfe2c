"""Counts and durations per model, in the shape of the protocol's statistics extension.

`compute_*` are sums over rows of the time spent in inference threads; `queue` is from a request's arrival to the start
of its first row; `success` and `fail` are whole requests.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

BATCH_SIZES_MAX = 256
"""Distinct batch sizes with figures of their own. Requests of any further size count only in the totals."""

COMPUTE = ("compute_input", "compute_infer", "compute_output")


@dataclass
class Duration:
    """A count and a total."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int, count: int = 1) -> None:
        self.count += count
        self.ns += ns

    def as_json(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass
class InferTimes:
    """How long one request took, summed over its rows."""

    queue_ns: int = 0
    compute_ns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COMPUTE, 0))

    def add_compute(self, name: str, ns: int) -> None:
        self.compute_ns[name] += ns

    def add(self, other: InferTimes) -> None:
        self.queue_ns += other.queue_ns
        for name, ns in other.compute_ns.items():
            self.compute_ns[name] += ns


class ModelStatistics:
    """One model's figures since the server started. Owned by the event loop."""

    def __init__(self) -> None:
        self._rows = 0
        self._requests = 0
        self._last_ms = 0
        self._durations = {name: Duration() for name in ("success", "fail", "queue", *COMPUTE, "cache_hit")}
        self._batches: dict[int, dict[str, Duration]] = {}

    def succeeded(self, rows: int, total_ns: int, times: InferTimes) -> None:
        """Counts a request that was answered, even if rows of it failed."""
        self._rows += rows
        self._requests += 1
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
        """Counts a request that ended in an error or whose client disconnected."""
        self._durations["fail"].add(total_ns)

    def as_json(self, name: str, version: str) -> dict[str, Any]:
        """One element of "model_stats"."""
        return {
            "name": name,
            "version": version,
            "last_inference": self._last_ms,
            "inference_count": self._rows,
            "execution_count": self._requests,
            "inference_stats": {key: value.as_json() for key, value in self._durations.items()},
            "batch_stats": [
                {"batch_size": size, **{key: value.as_json() for key, value in durations.items()}}
                for size, durations in sorted(self._batches.items())
            ],
        }
