"""The runtime `transformers`: what it recognises and refuses, and how it calls the library's pipeline.

A stand-in for the library answers here; `test_examples` runs the real one.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_packages import answers

from idunno_model_server.errors import PackageError
from idunno_model_server.execution import open_model
from idunno_model_server.packages import OpenedPackage, open_package
from idunno_model_server.statistics import InferTimes

CONFIG = {"architectures": ["BertForSequenceClassification"], "max_position_embeddings": 6}


class Pipeline:
    """Answers as the library's pipelines do, and keeps how it was called."""

    calls: list[tuple[str, list[str], dict[str, Any]]]

    def __init__(self, task: str, **made: Any) -> None:
        self.task, self.made = task, made
        self.calls = []

    def tokenizer(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [0, *map(len, text.split()), 0]}

    def __call__(self, texts: list[str], **options: Any) -> list[Any]:
        self.calls.append((self.task, texts, options))
        if self.task == "feature-extraction":
            return [[[[1.0, 2.0], [2.0, 4.00000049]]] for _ in texts]
        return [{"label": text.split()[0], "score": 0.12345678} for text in texts]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[Pipeline]:
    made: list[Pipeline] = []

    def pipeline(task: str, **options: Any) -> Pipeline:
        made.append(Pipeline(task, **options))
        return made[-1]

    for name, members in (("transformers", {"pipeline": pipeline}), ("torch", {"set_num_threads": lambda count: None})):
        module = types.ModuleType(name)
        module.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec(name, None)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, "")  # put back at the end
    return made


def folder(tmp_path: Path, config: Any = CONFIG, left_out: str = "", **settings: Any) -> OpenedPackage:
    files = tmp_path / "files"
    files.mkdir(exist_ok=True)
    texts = {
        "config.json": config if isinstance(config, str) else json.dumps(config),
        "tokenizer.json": "{}",
        "model.safetensors": "",
    }
    for name, text in texts.items():
        (files / name).unlink(missing_ok=True)
        if name != left_out:
            (files / name).write_text(text)
    manifest = {"format": 1, "runtime": "transformers", "entry": "config.json", "settings": settings, "files": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return open_package(tmp_path, "mine")


def test_texts_of_equal_length_run_together_and_long_ones_are_cut(tmp_path: Path, library: list[Pipeline]) -> None:
    package = folder(tmp_path, canary="a canary")
    rows = [b"good day", b"one", b'"bad day"', b"\xff", b" ", b"w w w w w w w w"]
    found = answers(package, rows)
    score = 0.123457
    assert found[:3] == [{"label": word, "score": score} for word in ("good", "one", "bad")]
    assert found[3:5] == ["the row is no text: byte 0 is not UTF-8", "the text is empty"]
    assert found[5] == {"label": "w", "score": score}
    (pipeline,) = library
    files = str(tmp_path / "files")
    assert pipeline.made == {"model": files, "tokenizer": files, "device": "cpu"}
    cut = {"truncation": True, "max_length": 6}
    assert pipeline.calls[-3:] == [
        ("text-classification", ["good day", "bad day"], {"batch_size": 2, **cut}),
        ("text-classification", ["one"], {"batch_size": 1, **cut}),
        ("text-classification", ["w w w w w w w w"], {"batch_size": 1, **cut}),
    ]
    execution = open_model(package.model, package.manifest).with_parameters({"truncate": False})
    (refused, kept) = execution.answer([b"w w w w w", b"w w w w"], InferTimes())
    assert (str(refused), isinstance(kept, bytes)) == ("the text has more than 6 tokens", True)


def test_features_are_the_mean_of_the_tokens(tmp_path: Path, library: list[Pipeline]) -> None:
    package = folder(tmp_path, {"architectures": ["BertModel"]})
    (tmp_path / "files" / "tokenizer_config.json").write_text('{"model_max_length": 1000000000000000019884624838656}')
    (vector,) = answers(package, [b"some words"])
    assert np.array(vector) == pytest.approx([1.5, 3.0])
    assert library[0].calls[-1][2] == {"batch_size": 1, "tokenize_kwargs": {}}, "the folder says no longest text"


def test_the_task_may_be_named(tmp_path: Path, library: list[Pipeline]) -> None:
    folder(tmp_path, {"architectures": ["OddNetwork"]}, task="feature-extraction")
    assert folder(tmp_path, CONFIG).model.task == "text-classification"  # type: ignore[attr-defined]
    assert folder(tmp_path, CONFIG, task="feature-extraction").model.task == "feature-extraction"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda at: folder(at, left_out="tokenizer.json"), "it needs tokenizer.json"),
        (lambda at: folder(at, left_out="model.safetensors"), "it needs weights in a .safetensors file"),
        (lambda at: folder(at, "{"), "config.json is not JSON"),
        (lambda at: folder(at, "[]"), "config.json is no object"),
        (lambda at: folder(at, {"architectures": ["LlamaForCausalLM"]}), r"\(LlamaForCausalLM\) show no task"),
        (lambda at: folder(at, {}), r"\(none\) show no task"),
        (lambda at: folder(at, task="translation"), "task 'translation' is not among those"),
        (lambda at: folder(at, {**CONFIG, "auto_map": {}}), "its network is code in the folder"),
    ],
)
def test_what_it_cannot_run_is_refused(
    tmp_path: Path, library: list[Pipeline], made: Callable[[Path], object], says: str
) -> None:
    with pytest.raises(PackageError, match=says):
        made(tmp_path)


def test_the_libraries_must_be_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises((PackageError, ValueError), match="transformers"):
        folder(tmp_path)
