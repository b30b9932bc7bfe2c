"""JSON with integers of any size, by orjson and by the standard library alone."""

from __future__ import annotations

import asyncio
import datetime
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_packages import answers, opened
from test_runners import ask, supervised
from test_runtimes import program

from idunno_model_server import json_codec
from idunno_model_server.execution import open_model
from idunno_model_server.outputs import encode_json
from idunno_model_server.runtimes.openai_server.template import Row, Template
from idunno_model_server.statistics import InferTimes

OVER_64_BITS = (2**64, -(2**63) - 1, 9_999_999_999_999_999_999_999, -(10**40))
EDGES = (2**63 - 1, -(2**63), 2**64 - 1, 10**18, -(10**18))


@pytest.fixture(params=["orjson", "standard library"])
def codec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    if request.param == "orjson":
        yield json_codec
        return
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "orjson", None)
        yield importlib.reload(json_codec)
    importlib.reload(json_codec)


@pytest.mark.parametrize("number", [*OVER_64_BITS, *EDGES])
def test_an_integer_of_any_size_comes_back_byte_for_byte(codec: ModuleType, number: int) -> None:
    text = b'{"a":[%d,{"b":%d}],"c":"\xc3\xa9"}' % (number, number)
    for given in (text, memoryview(text), text.decode()):
        value = codec.loads(given)
        assert value == {"a": [number, {"b": number}], "c": "é"}
        assert codec.dumps(value) == text
        assert codec.dump_any(value, str) == text


def test_keys_and_values_of_any_kind_stand_beside_a_large_integer(codec: ModuleType) -> None:
    date = datetime.date(2026, 12, 2)
    value = {date: 2**70, 2**65: date, 3: None, "numbers": np.arange(2), "plain": [{date: 1.5}]}
    encoded = codec.dump_any(value, lambda item: item.tolist())
    key = "2026-12-02"
    assert json.loads(encoded) == {key: 2**70, str(2**65): key, "3": None, "numbers": [0, 1], "plain": [{key: 1.5}]}


@pytest.mark.parametrize("value", [object(), "\ud800", {"large": 2**70, "odd": object()}])
def test_what_is_no_json_is_refused_as_before(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        json_codec.dumps(value)


def test_text_that_is_no_json_is_refused_whatever_reads_it(codec: ModuleType) -> None:
    for text in (
        b"{",
        b"NaN",
        b"[12345678901234567890123, NaN]",
        b"1234567890123456789012x",
        b'"\xff1234567890123456789"',
    ):
        with pytest.raises(json_codec.JSONDecodeError):
            codec.loads(text)


def test_outputs_may_hold_large_integers_and_still_no_nan() -> None:
    assert encode_json({"n": 2**64, "rows": [np.float64(1.5)]}) == b'{"n":18446744073709551616,"rows":[1.5]}'
    with pytest.raises(Exception, match="NaN"):
        encode_json({"n": 2**64, "x": float("nan")})


MODEL = """
import json
from idunno_model_server.api import BatchModel, RowError

class Echo(BatchModel):
    def predict(self, inputs):
        rows = [json.loads(row) for row in inputs]
        return [RowError(f"refused {row['refuse']}") if "refuse" in row else {"row": [row], 1: row} for row in rows]
    def canary(self):
        return b"{}"
"""


def test_a_runner_answers_integers_of_any_size(tmp_path: Path) -> None:
    async def test() -> None:
        async with supervised(tmp_path, {"model.py": MODEL}) as runner:
            await runner.open()
            for digits in (20, 40, 6000):
                row = '{"n":' + "7" * digits + "}"
                assert await ask(runner, row) == f'{{"row":[{row}],"1":{row}}}'.encode()

    asyncio.run(test())


def test_a_row_error_names_a_large_integer(tmp_path: Path) -> None:
    (found,) = answers(opened(tmp_path, {"model.py": MODEL}), [b'{"refuse":123456789012345678901234567890}'])
    assert found == "refused 123456789012345678901234567890"


def test_a_programs_answer_keeps_its_integers(tmp_path: Path) -> None:
    package = program(tmp_path, "#!/bin/sh\nexec cat\n", canary="1")
    execution = open_model(package.model, package.manifest)
    rows = [b"123456789012345678901234567890", b'{"n":[-99999999999999999999]}']
    assert execution.answer(rows, InferTimes()) == rows


def test_a_prompt_and_a_request_keep_the_integers_of_their_row() -> None:
    row = Row(b'{"n": 123456789012345678901234567890, "list": [18446744073709551616]}')
    assert Template("{n} {list}").fill(row) == "123456789012345678901234567890 [18446744073709551616]"
