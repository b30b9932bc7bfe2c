"""Data frames and Arrow tables as inputs, and results as data frames and Arrow tables.

None of these libraries is needed for the others: pyarrow is used where it is installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ._types import Row

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

# In this order; the columns that the dataset kept come before those about the work.
_FIRST = ("query", "name", "id", "label", "output", "error")
_LAST = ("model", "version", "worker", "attempt")
_ALWAYS = frozenset(("query", "output", "error"))


def is_frame(data: Any) -> bool:
    """Whether it has columns: a frame of pandas or polars, or anything that gives a stream of Arrow's."""
    is_one_column = type(data).__name__ in ("Series", "ChunkedArray")
    return (hasattr(data, "__arrow_c_stream__") or _is_pandas(data)) and not is_one_column


def _is_pandas(data: Any) -> bool:
    return type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "to_dict") and hasattr(data, "columns")


def records_of(frame: Any) -> Iterator[Any]:
    """A record for each row: an object of its columns, or the value itself where there is one column."""
    for record in _objects(frame):
        yield next(iter(record.values())) if len(record) == 1 else record


def _objects(frame: Any) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
    except ImportError:
        if _is_pandas(frame):
            # As with pyarrow, what is missing is null.
            yield from frame.astype(object).where(frame.notna(), None).to_dict("records")
        elif hasattr(frame, "iter_rows"):
            yield from frame.iter_rows(named=True)
        else:
            raise TypeError(f"a {type(frame).__name__} is read by pyarrow: pip install pyarrow") from None
        return
    for batch in pyarrow.RecordBatchReader.from_stream(frame):
        yield from batch.to_pylist()


def columns_of(rows: list[Row]) -> dict[str, list[Any]]:
    """The rows, in the order of the queries, as columns.

    >>> columns_of([{"query": 1, "output": "b"}, {"query": 0, "error": "no"}])
    {'query': [0, 1], 'output': [None, 'b'], 'error': ['no', None]}
    """
    rows = sorted(rows, key=lambda row: row["query"])
    kept: dict[str, None] = {}
    for row in rows:
        kept.update(dict.fromkeys(row.get("fields") or ()))
    found = {name for row in rows for name in row} | _ALWAYS
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in _FIRST if name in found}
    for name in kept:
        title = f"fields.{name}" if name in _FIRST + _LAST else name
        columns[title] = [(row.get("fields") or {}).get(name) for row in rows]
    return columns | {name: [row.get(name) for row in rows] for name in _LAST if name in found}


def to_pandas(rows: list[Row]) -> pandas.DataFrame:
    """A row for each query."""
    import pandas

    return pandas.DataFrame(columns_of(rows))


def to_polars(rows: list[Row]) -> polars.DataFrame:
    """A row for each query. A column whose values have no common type has their JSON."""
    import polars

    def series(name: str, values: list[Any]) -> polars.Series:
        try:
            return polars.Series(name, values, strict=True)
        except (TypeError, ValueError, OverflowError, polars.exceptions.PolarsError):
            return polars.Series(name, _texts(values), dtype=polars.String)

    return polars.DataFrame([series(name, values) for name, values in columns_of(rows).items()])


def to_arrow(rows: list[Row]) -> pyarrow.Table:
    """A row for each query. A column whose values have no common type has their JSON."""
    import pyarrow

    def array(values: list[Any]) -> Any:
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError):
            return pyarrow.array(_texts(values), pyarrow.string())

    return pyarrow.table({name: array(values) for name, values in columns_of(rows).items()})


def _texts(values: list[Any]) -> list[str | None]:
    return [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
