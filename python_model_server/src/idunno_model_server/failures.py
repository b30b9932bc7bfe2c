"""The newest failures of a model's own code, for whoever asks why its rows fail.

Bounds: FAILURES_KEPT per model, each with a bounded traceback (`user_code`). A failure that repeats is counted, so
that it does not push others out.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from .errors import ModelFailure

FAILURES_KEPT = 8


@dataclass
class Failure:
    """A failure, and how often it came."""

    reason: str
    traceback: str
    version: str
    rows: int
    """Of the last request that it failed; 0 if the version could not be loaded."""
    count: int
    last_ms: int
    """When it last came, in milliseconds since 1970."""


class RecentFailures:
    """One model's. Owned by the event loop."""

    def __init__(self) -> None:
        self._kept: deque[Failure] = deque(maxlen=FAILURES_KEPT)

    def add(self, model: str, version: str, error: ModelFailure, rows: int) -> None:
        """Keeps a failure, and writes one that is new to the log."""
        now_ms = time.time_ns() // 1_000_000
        count = 1
        same = [kept for kept in self._kept if (kept.reason, kept.version) == (error.message, version)]
        if same:
            count += same[0].count
            self._kept.remove(same[0])
        else:
            print(
                f"model {model} version {version} failed: {error.message}\n{error.traceback}",
                file=sys.stderr,
                flush=True,
            )
        self._kept.append(Failure(error.message, error.traceback, version, rows, count, now_ms))

    def as_json(self) -> list[dict[str, Any]]:
        """The newest first."""
        return [asdict(failure) for failure in reversed(self._kept)]
