"""The runtimes of packages that have no Python code of their own: a program, and an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper, save
from test_packages import answers, write_package

from idunno_model_server.errors import ModelFailure, PackageError
from idunno_model_server.execution import open_model
from idunno_model_server.packages import OpenedPackage, open_package


def program(tmp_path: Path, text: str, mode: int = 0o755, **settings: Any) -> OpenedPackage:
    version = write_package(tmp_path, {"run": text, "words.txt": "a word"}, "run", **settings)
    manifest = tmp_path / version / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"python"', '"command"'))
    (tmp_path / version / "files" / "run").chmod(mode)
    return open_package(tmp_path / version, "mine")


LINES = """#!/bin/sh
while IFS= read -r row; do
    case "$row" in
        bad) echo '{"error": "a bad row"}' ;;
        *) printf '{"row": "%s", "word": "%s", "argument": "%s"}\\n' "$row" "$(cat words.txt)" "$1" ;;
    esac
done
"""


def test_a_program_answers_a_line_for_each_row(tmp_path: Path) -> None:
    package = program(tmp_path, LINES, canary="hello", arguments=["-x"])
    rows = [b"one", b"bad", b"two\nlines", b"two"]
    assert answers(package, rows) == [
        {"row": "one", "word": "a word", "argument": "-x"},
        "a bad row",
        "the row has a line end",
        {"row": "two", "word": "a word", "argument": "-x"},
    ]


def test_a_program_that_reads_one_row_answers_with_all_that_it_writes(tmp_path: Path) -> None:
    script = '#!/bin/sh\nsize=$(wc -c)\n[ "$size" -lt 9 ] || { echo "too long" >&2; exit 3; }\necho "$size bytes"\n'
    package = program(tmp_path, script, stdin="row")
    assert answers(package, [b"a\nb", b"0123456789"]) == ["3 bytes", "it ended with status 3: too long"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("#!/bin/sh\ncat; echo one line more", "it wrote 2 lines for 1 rows"),
        ("#!/bin/sh\necho no >&2; exit 2", "it ended with status 2: no"),
        ("#!/bin/sh\nkill -9 $$", "it ended with signal 9"),
        ("#!/nothing/like/this\n", "FileNotFoundError"),
    ],
)
def test_a_program_that_fails_fails_its_batch(tmp_path: Path, script: str, reason: str) -> None:
    with pytest.raises(ModelFailure, match=reason):
        answers(program(tmp_path, script), [b"row"])
    package = program(tmp_path, script, canary="hello")
    with pytest.raises(ModelFailure, match=reason):
        open_model(package.model, package.manifest)


def test_a_program_that_cannot_be_executed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="run: it is not executable"):
        program(tmp_path, LINES, mode=0o644)
    with pytest.raises(PackageError, match='stdin must be "lines" or "row"'):
        program(tmp_path, LINES, stdin="rows")


def network(tmp_path: Path, inputs: list[Any], outputs: list[Any], nodes: list[Any], **settings: Any) -> OpenedPackage:
    version = write_package(tmp_path, {"net.onnx": ""}, "net.onnx", **settings)
    graph = helper.make_graph(nodes, "net", inputs, outputs)
    opset = helper.make_opsetid("", 17)
    save(helper.make_model(graph, opset_imports=[opset], ir_version=9), tmp_path / version / "files" / "net.onnx")
    manifest = tmp_path / version / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"python"', '"onnx"'))
    return open_package(tmp_path / version, "mine")


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def row(values: Any) -> bytes:
    return json.dumps(values).encode()


def doubling(tmp_path: Path, **settings: Any) -> OpenedPackage:
    """Two outputs: the sum of the input and itself, and its negative."""
    nodes = [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("Neg", ["x"], ["minus"])]
    shape = ["rows", 2]
    return network(tmp_path, [value("x", shape)], [value("twice", shape), value("minus", shape)], nodes, **settings)


def test_rows_run_as_one_batch_and_bad_ones_fail_alone(tmp_path: Path) -> None:
    rows = [
        row([1, 2]),
        row([[3, 4]]),
        row({"x": [5, 6]}),
        row([1, 2, 3]),
        b"{",
        row(["a", "b"]),
        row([[1, 2], [3, 4]]),
    ]
    found = answers(doubling(tmp_path, output="twice"), rows)
    assert found[:3] == [[2, 4], [6, 8], [10, 12]]
    assert found[3] == "input 'x' has the shape [1, 3], and the network takes ['any', 2]"
    assert found[4].startswith("the row is not JSON")
    assert found[5].startswith("input 'x': could not convert")
    assert "the shape [2, 2]" in found[6]


def test_all_outputs_are_answered_unless_one_is_named(tmp_path: Path) -> None:
    assert answers(doubling(tmp_path), [row([1, 2])]) == [{"twice": [2, 4], "minus": [-1, -2]}]
    with pytest.raises(ModelFailure, match=r"no output 'thrice'; its outputs are twice, minus"):
        answers(doubling(tmp_path, output="thrice"), [row([1, 2])])


def test_a_network_of_one_row_and_two_inputs_runs_row_by_row(tmp_path: Path) -> None:
    inputs = [value("a", [1, 2], TensorProto.INT64), value("b", [1, 2], TensorProto.INT64)]
    outputs = [value("sum", [1, 2], TensorProto.INT64)]
    package = network(tmp_path, inputs, outputs, [helper.make_node("Add", ["a", "b"], ["sum"])])
    rows = [row({"a": [1, 2], "b": [10, 20]}), row({"a": [1, 2]}), row([1, 2])]
    found = answers(package, rows)
    assert found[0] == [11, 22]
    assert found[1] == "the row has no value for the input 'b'"
    assert found[2] == "the row must be an object with the inputs of the network: a, b"


def test_an_input_of_strings_takes_text(tmp_path: Path) -> None:
    package = network(
        tmp_path,
        [value("text", ["rows"], TensorProto.STRING)],
        [value("same", ["rows"], TensorProto.STRING)],
        [helper.make_node("Identity", ["text"], ["same"])],
    )
    assert answers(package, [b"some words", row("quoted")]) == ["some words", "quoted"]


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    package = doubling(tmp_path)
    (package.manifest.parent / "files" / "net.onnx").write_bytes(b"not a network")
    with pytest.raises(ModelFailure, match=r"InvalidProtobuf|Protobuf parsing failed"):
        answers(package, [row([1, 2])])
