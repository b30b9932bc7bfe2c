"""A bar for a job that is waited for, by tqdm where it is installed, on a terminal or in a notebook only."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from ._types import JobStats


class Bar:
    """The bar of one job; nothing where none is shown. `wanted` decides instead of where the output goes."""

    def __init__(self, job: str, wanted: bool | None) -> None:
        self._job = job
        self._bar: Any = None
        self._make: Any = _tqdm(wanted) if (wanted if wanted is not None else _is_watched()) else None

    def show(self, stats: JobStats) -> None:
        """Moves the bar."""
        if self._make is None:
            return
        if self._bar is None:
            self._bar = self._make(total=stats["submitted"], desc=stats["name"] or self._job, unit="query")
        self._bar.update(stats["done"] + stats["dead_letters"] - self._bar.n)
        if stats["dead_letters"]:
            self._bar.set_postfix(failed=stats["dead_letters"], refresh=False)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def _is_watched() -> bool:
    """Whether a person sees it: on a terminal, or in a notebook."""
    return (sys.stderr is not None and sys.stderr.isatty()) or "ipykernel" in sys.modules


def _tqdm(wanted: bool | None) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        if wanted:
            raise ImportError("progress bars need tqdm: pip install 'idunno[progress]'") from None
        return None
    return tqdm
