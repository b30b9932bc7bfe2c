"""BYTES tensors: rows come back as they were, whether they are copied or sliced, and broken bytes are refused."""

import random

import pytest

from idunno_model_server.bytes_tensor import COPIED_BYTES_MAX, LENGTH, ROWS_MAX, TensorError, join_rows, split_rows
from idunno_model_server.errors import RowError
from idunno_model_server.inference_pool import InferResult
from idunno_model_server.statistics import InferTimes


@pytest.mark.parametrize("seed", range(5))
def test_rows_come_back_copied_or_sliced(seed: int) -> None:
    generator = random.Random(seed)  # noqa: S311
    rows = [generator.randbytes(generator.choice([0, 1, 70, 5000])) for _ in range(generator.randint(1, 300))]
    long = [*rows, bytes(COPIED_BYTES_MAX)]
    for expected, kind in ((rows, bytes), (long, memoryview)):
        tensor = memoryview(bytearray(join_rows(expected)))
        found = split_rows(tensor)
        assert found == expected, f"seed {seed}"
        assert {type(row) for row in found} == {kind}, f"seed {seed}"
        with pytest.raises(TensorError, match="ends inside"):
            split_rows(tensor[:-1])


def test_no_more_rows_than_are_allowed() -> None:
    with pytest.raises(TensorError, match=str(ROWS_MAX)):
        split_rows(memoryview(LENGTH.pack(0) * (ROWS_MAX + 1)))


def test_a_row_is_an_output_or_an_error() -> None:
    answered = InferResult([b"1", b""], InferTimes()).tensors().tensors
    assert answered == {"output": [b"1", b""], "error": [b"", b""]}
    mixed = InferResult([b"1", RowError("no words"), b"3"], InferTimes()).tensors().tensors
    assert mixed == {"output": [b"1", b"", b"3"], "error": [b"", b"no words", b""]}
