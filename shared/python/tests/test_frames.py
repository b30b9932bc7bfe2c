"""Data frames and Arrow tables, as inputs and as results."""

from __future__ import annotations

import sys
from typing import Any

import idunno
import models
import pandas
import polars
import pyarrow
import pytest

COLUMNS = {"input": ["the puck", "the orbit", "the goalie"], "id": [7, 8, 9], "city": ["Bern", "Kiel", "Ulm"]}


@pytest.fixture(scope="module", autouse=True)
def _shipped(cluster: idunno.LocalCluster) -> None:
    client = cluster.connect()
    client.add_model(models.lengths)
    client.add_model(models.echo)
    client.add_model(models.hexadecimal)


class Stream:
    """Nothing but Arrow's protocol."""

    def __init__(self, table: pyarrow.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def frames() -> list[Any]:
    table = pyarrow.table(COLUMNS)
    return [pandas.DataFrame(COLUMNS), polars.DataFrame(COLUMNS), table, Stream(table)]


@pytest.mark.parametrize("frame", frames(), ids=["pandas", "polars", "pyarrow", "protocol"])
def test_frames_go_in_and_come_back(client: idunno.Client, frame: Any) -> None:
    job = client.run("lengths", frame, keep="all")
    expected = {"query": [0, 1, 2], "id": [7, 8, 9], "output": [8, 9, 10], "city": COLUMNS["city"]}
    by_pandas, by_polars, by_arrow = job.to_pandas(), job.to_polars(), job.to_arrow()
    for name, values in expected.items():
        assert by_pandas[name].tolist() == values
        assert by_polars[name].to_list() == values
        assert by_arrow[name].to_pylist() == values
    assert by_arrow.schema.field("output").type == pyarrow.int64()
    assert by_polars.schema["output"] == polars.Int64
    assert by_arrow["error"].null_count == 3


@pytest.mark.parametrize("frame", frames()[:2], ids=["pandas", "polars"])
def test_frames_go_in_without_pyarrow(client: idunno.Client, frame: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    job = client.run("lengths", frame)
    assert sorted((row["id"], row["output"]) for row in job.results()) == [(7, 8), (8, 9), (9, 10)]


def test_one_column_is_its_values_also_of_bytes(client: idunno.Client) -> None:
    texts = client.run("lengths", pandas.DataFrame({"any": ["a", "bb"]}))
    assert texts.to_pandas()["output"].tolist() == [1, 2]
    for column in (pandas.Series(["a", "bb"]), polars.Series(["a", "bb"]), pyarrow.chunked_array([["a"], ["bb"]])):
        assert client.run("lengths", column).to_pandas()["output"].tolist() == [1, 2]
    photos = client.run("hexadecimal", pyarrow.table({"photo": [b"\x00\xff", b"\n"]}))
    assert photos.to_arrow()["output"].to_pylist() == ["00ff", "0a"]


def test_outputs_of_different_types_become_json(client: idunno.Client) -> None:
    job = client.run("echo", [{"a": 1}, {"b": [1, "x"]}, [1]])
    table = job.to_arrow()
    assert table["output"].to_pylist() == ['{"a": 1}', '{"b": [1, "x"]}', "[1]"]
    assert job.to_polars()["output"].to_list() == table["output"].to_pylist()
    assert job.to_pandas()["output"].tolist() == [{"a": 1}, {"b": [1, "x"]}, [1]]


def test_outputs_of_one_shape_become_structures(client: idunno.Client) -> None:
    job = client.run("echo", [{"a": 1, "b": ["x"]}, {"a": 2, "b": []}])
    assert job.to_arrow()["output"].to_pylist() == [{"a": 1, "b": ["x"]}, {"a": 2, "b": []}]
    assert job.to_polars()["output"].struct.field("a").to_list() == [1, 2]
