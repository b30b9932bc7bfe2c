"""The packages in examples/, each with its real library and its real weights.

What the locked environment does not have comes from the package index, if IDUNNO_TEST_ONLINE=1.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ModelServer, wait_until
from example_packages import EXAMPLES, add_example, clean_environment, copied, fetch_locked
from PIL import Image, ImageDraw, ImageFont
from wire import binary_request, binary_response

ONLINE = "IDUNNO_TEST_ONLINE"
LARGE = "IDUNNO_TEST_LARGE"
needs_index = pytest.mark.skipif(ONLINE not in os.environ, reason=f"asks the package index: set {ONLINE}=1")
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__")
LINES_MAX = 70
"""Of a file: a screen."""


class Served:
    """A server, and the examples in it."""

    def __init__(self, server: ModelServer, packages: Path, scratch: Path) -> None:
        self.server, self.packages, self.scratch = server, packages, scratch

    def add(self, folder: Path, *, environment: bool) -> Callable[..., list[Any]]:
        """Adds and loads an example; gives what asks it: an answer for each row, or the reason why there is none."""
        version = add_example(self.packages, folder, environment=environment)
        checked = self.server.client.post(f"/idunno/models/{folder.name}/packages/{version}/check", timeout=600)
        assert checked.status_code == 200, checked.text
        loaded = self.server.client.post(
            f"/v2/repository/models/{folder.name}/load",
            json={"parameters": {"version": version, "package": True, "beside": True}},
            timeout=600,
        )
        assert loaded.status_code == 200, loaded.text

        def ask(*rows: bytes, **parameters: Any) -> list[Any]:
            content, headers = binary_request(list(rows))
            if parameters:
                size = int(headers["Inference-Header-Content-Length"])
                request = json.loads(content[:size])
                request["parameters"] |= parameters
                head = json.dumps(request).encode()
                content, headers = head + content[size:], {"Inference-Header-Content-Length": str(len(head))}
            path = f"/v2/models/{folder.name}/versions/{version}/infer"
            answer = self.server.client.post(path, content=content, headers=headers, timeout=300)
            _, tensors = binary_response(answer)
            pairs = zip(tensors["output"], tensors["error"], strict=True)
            return [error.decode() if error else json.loads(output) for output, error in pairs]

        return ask


@pytest.fixture(scope="module")
def served(start_server: Callable[..., ModelServer], tmp_path_factory: pytest.TempPathFactory) -> Served:
    packages = tmp_path_factory.mktemp("packages")
    server = start_server("--packages-dir", str(packages))
    return Served(server, packages, tmp_path_factory.mktemp("examples"))


def test_the_page_lists_each_example_and_none_is_longer_than_a_screen() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert sorted(set(re.findall(r"^\| \[`([a-z-]+)`\]", page, re.MULTILINE))) == NAMES
    for path in (path for name in NAMES for path in (EXAMPLES / name).iterdir() if path.suffix in (".py", "")):
        assert path.is_dir() or len(path.read_text().splitlines()) <= LINES_MAX, path


@pytest.fixture(scope="module")
def irises(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples of irises, with what make_iris.py makes."""
    folder = tmp_path_factory.mktemp("irises")
    for name in ("onnx-network", "sklearn-pipeline"):
        shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns("iris.*"))
    subprocess.run([sys.executable, str(EXAMPLES / "make_iris.py"), str(folder)], check=True)
    return folder


IRISES = [b"[5.1, 3.5, 1.4, 0.2]", b"[7.0, 3.2, 4.7, 1.4]", b"[6.3, 3.3, 6.0, 2.5]", b"[1, 2]", b"not JSON"]
SPECIES = ["setosa", "versicolor", "virginica"]


@pytest.mark.slow
def test_an_onnx_network_and_a_pipeline_of_sklearn_answer_the_same(served: Served, irises: Path) -> None:
    network = served.add(irises / "onnx-network", environment=False)(*IRISES)
    pipeline = served.add(irises / "sklearn-pipeline", environment=False)(*IRISES)
    assert [answer["label"] for answer in pipeline[:3]] == SPECIES
    for probabilities, answer in zip(network[:3], pipeline[:3], strict=True):
        assert probabilities[SPECIES.index(answer["label"])] == pytest.approx(answer["probability"], abs=2e-6)
        assert sum(probabilities) == pytest.approx(1, abs=3e-6)
    assert "the network takes ['any', 4]" in network[3]
    assert pipeline[3] == "the row must be a list of 4 values, not 2 values"
    assert network[4].startswith("the row is not JSON")
    assert pipeline[4].startswith("the row is not JSON")


@needs_index
def test_a_pipeline_of_sklearn_in_an_environment_of_its_own(served: Served, irises: Path) -> None:
    folder = shutil.copytree(irises / "sklearn-pipeline", irises / "sklearn-alone" / "sklearn-alone")
    answers = served.add(folder, environment=True)(*IRISES[:3])
    assert [answer["label"] for answer in answers] == SPECIES


@pytest.mark.skipif(shutil.which("file") is None, reason="the program file is not installed")
def test_the_type_of_a_file(served: Served) -> None:
    image = io.BytesIO()
    Image.new("RGB", (8, 8)).save(image, "PNG")
    ask = served.add(EXAMPLES / "file-type", environment=False)
    assert ask(b"some words", image.getvalue(), b"%PDF-1.4\n") == ["text/plain", "image/png", "application/pdf"]


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="the program ffprobe is not installed")
def test_what_a_recording_has(served: Served) -> None:
    good, bad = served.add(EXAMPLES / "media-info", environment=False)(wav(bytes(32000)), b"no recording")
    assert good["streams"] == [{"codec_name": "pcm_s16le", "codec_type": "audio"}]
    assert float(good["format"]["duration"]) == 1.0
    assert "Invalid data" in bad


SENTENCES = (
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
)
SIMILARITIES = [0.6946, 0.9429, 0.2569]
"""Of the first sentence to the others, as the model's card has them."""


@needs_index
def test_vectors_of_sentences(served: Served) -> None:
    ask = served.add(copied("sentence-embeddings", served.scratch), environment=True)
    *answers, empty = ask(*(sentence.encode() for sentence in SENTENCES), b" ")
    vectors = np.array(answers)
    assert vectors.shape == (4, 384)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert vectors[0] @ vectors[1:].T == pytest.approx(SIMILARITIES, abs=1e-4)
    assert empty == "the text is empty"
    long = b"word " * 300
    assert ask(long) == ask(long + b"more")
    assert ask(long, truncate=False) == ["the text has more than 256 tokens"]
    assert ask(SENTENCES[0].encode()) == answers[:1], "a row's answer does not depend on its batch"


@pytest.mark.skipif(LARGE not in os.environ, reason=f"installs torch and transformers, some 5 GB: set {LARGE}=1")
def test_features_of_texts_by_torch(served: Served) -> None:
    """The same weights as `sentence-embeddings`, by the real library: scaled to length 1, the vectors are the same."""
    ask = served.add(copied("text-features", served.scratch), environment=True)
    *answers, empty = ask(*(sentence.encode() for sentence in SENTENCES), b" ")
    vectors = np.array(answers)
    assert vectors.shape == (4, 384)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert vectors[0] @ vectors[1:].T == pytest.approx(SIMILARITIES, abs=1e-4)
    assert empty == "the text is empty"
    # torch pads a batch and may add up in another order: the last digit differs.
    (alone,) = ask(SENTENCES[0].encode())
    assert alone == pytest.approx(answers[0], abs=1e-5), "a row's answer does not depend on its batch"


def drawn(*lines: str) -> bytes:
    image = Image.new("RGB", (640, 60 + 60 * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(image).text((30, 30 + 60 * number), line, "black", ImageFont.load_default(36))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@needs_index
def test_the_words_in_an_image(served: Served) -> None:
    ask = served.add(copied("ocr", served.scratch), environment=True)
    two, none, bad = ask(drawn("IDunno cluster 42", "reads every image"), drawn(), b"no image")
    assert [line["text"] for line in two["lines"]] == ["IDunno cluster 42", "reads every image"]
    assert all(line["score"] > 0.9 for line in two["lines"])
    assert none == {"lines": []}
    assert bad == "not an image that OpenCV reads"


def wav(samples: bytes) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(samples)
    return out.getvalue()


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """2.8 s in which somebody says "go forward ten meters"."""
    folder = tmp_path_factory.mktemp("speech")
    fetch_locked(Path(__file__).with_name("speech.toml"), folder)
    return (folder / "goforward.raw").read_bytes()


@needs_index
def test_when_somebody_speaks(served: Served, speech: bytes) -> None:
    ask = served.add(copied("speech-activity", served.scratch), environment=True)
    noise = np.random.default_rng(0).normal(0, 300, 32000).astype("<i2").tobytes()
    said, after_silence, hiss, silence, bad = ask(
        wav(speech), wav(bytes(2 * 32000) + speech), wav(noise), wav(bytes(32000)), b"no sound"
    )
    assert said["highest"] > 0.95
    assert 1 < sum(part["to_s"] - part["from_s"] for part in said["speech"]) < 2.8
    shift = after_silence["speech"][0]["from_s"] - said["speech"][0]["from_s"]
    assert shift == pytest.approx(2, abs=0.2)
    assert (hiss["speech"], silence["speech"]) == ([], [])
    assert bad == "not a WAV file of PCM"


@needs_index
def test_what_is_said(served: Served, speech: bytes) -> None:
    ask = served.add(copied("transcription", served.scratch), environment=True)
    noise = np.random.default_rng(0).normal(0, 9000, 48000).clip(-32768, 32767).astype("<i2").tobytes()
    first, _, silence, again, bad = ask(wav(speech), wav(noise), wav(bytes(32000)), wav(speech), b"no sound")
    assert first["text"] == again["text"] == "go forward ten meters"
    assert [word["word"] for word in first["words"]] == ["go", "forward", "ten", "meters"]
    assert first == again, "a row's answer does not depend on the rows before it"
    assert silence["text"] == ""
    assert bad == "not a WAV file of PCM"


@needs_index
def test_the_language_of_a_text(served: Served) -> None:
    ask = served.add(copied("language-detection", served.scratch), environment=True)
    texts = (
        "Hello, how are you today?",
        "Wie geht es dir heute?",
        "Bonjour, comment allez-vous ?",
        "Me gusta mucho leer libros por la noche",
    )
    *answers, none = ask(*(text.encode() for text in texts), b"12 3")
    assert [answer["label"] for answer in answers] == ["en", "de", "fr", "es"]
    assert all(answer["score"] > 0.8 for answer in answers)
    assert none == "the text has no letters"
    (three,) = ask(texts[0].encode(), count=3)
    assert (three["label"], len(three["others"])) == ("en", 2)


@pytest.fixture
def llm(tmp_path: Path) -> Iterator[int]:
    """The port of serve_llm.py."""
    python = tmp_path / "llm" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "llm")], check=True, env=clean_environment())
    (line,) = re.findall(r"llm/bin/pip (install .*)", (EXAMPLES / "serve_llm.py").read_text())
    subprocess.run([str(python), "-m", "pip", "--quiet", *line.split()], check=True, env=clean_environment())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen([python, EXAMPLES / "serve_llm.py", str(port)], env=clean_environment())

    def healthy() -> bool:
        assert process.poll() is None, f"the server exited with code {process.returncode}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return True
        except OSError:
            return False

    try:
        wait_until(healthy, "the language model")
        yield port
    finally:
        process.kill()
        process.wait()


@needs_index
def test_a_language_model_labels_reviews(served: Served, llm: int) -> None:
    folder = copied("llm-labels", served.scratch)
    toml = folder / "model.toml"
    toml.write_text(toml.read_text().replace(":8000/", f":{llm}/"))
    ask = served.add(folder, environment=False)
    answers = ask(b'{"text": "A wonderful and moving film."}', b'{"text": "Dull, long and loud."}', b'{"other": 1}')
    for answer in answers[:2]:
        assert answer["json"]["label"] in ("good", "bad")
        assert answer["finish_reason"] == "stop"
    assert "text" in answers[2]
