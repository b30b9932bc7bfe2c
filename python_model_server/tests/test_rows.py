"""Rows are independent: an error stays in its row, and other rows, batch sizes and threads change no answer."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ModelServer
from PIL import Image
from wire import binary_response, outputs, top1

from idunno_model_server import images, reference_labels
from idunno_model_server.execution import open_model
from idunno_model_server.models import registry
from idunno_model_server.training_result import train_model


def announced_png(width: int, height: int) -> bytes:
    """A small PNG whose header announces many pixels."""
    kind = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + kind + struct.pack(">I", zlib.crc32(kind))
    data = b"IDAT" + zlib.compress(b"\0")
    body = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + header + body


def test_running_out_of_memory_is_not_a_row_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_args: object, **_options: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", no_memory)
    with pytest.raises(MemoryError):
        images.open_image(b"a photo", "RGB")


@pytest.mark.parametrize("model", ["squeezenet1.1", "mnist-mlp"])
def test_bad_rows_do_not_fail_the_batch(loaded: ModelServer, photos: list[bytes], model: str) -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    bad = [b"", b"no image at all", photos[1][: len(photos[1]) // 2], announced_png(60_000, 60_000), postscript]
    rows = [photos[0], *bad, photos[2]]
    _, tensors = binary_response(loaded.infer(model, rows))
    says = [
        b"",
        b"empty file",
        b"not an image file",
        b"damaged image: ",
        b"image has 3600000000 pixels",
        b"not an",
        b"",
    ]
    for error, start in zip(tensors["error"], says, strict=True):
        assert error.startswith(start)
        assert bool(error) == bool(start)
    answered = [bool(row) for row in tensors["output"]]
    assert answered == [True, *[False] * len(bad), True]
    good = outputs(loaded.infer(model, [photos[0], photos[2]]))
    assert [tensors["output"][0], tensors["output"][-1]] == good


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1"])
def test_every_colour_mode_is_answered(loaded: ModelServer, mode: str) -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").convert(mode).save(buffer, "TIFF")
    assert len(outputs(loaded.infer("squeezenet1.1", [buffer.getvalue()]))) == 1


def test_a_one_pixel_image_is_answered(loaded: ModelServer) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "PNG")
    for model in ("squeezenet1.1", "mnist-mlp"):
        assert len(outputs(loaded.infer(model, [buffer.getvalue()]))) == 1


def test_rows_do_not_depend_on_the_batch(
    loaded: ModelServer,
    photos: list[bytes],
    artefacts: dict[str, bytes],
    start_server: Callable[..., ModelServer],
) -> None:
    """One batch, single requests in another order, concurrent requests and one thread all give the same bytes."""
    model = "squeezenet1.1"
    together = outputs(loaded.infer(model, photos))
    alone = [outputs(loaded.infer(model, [photo]))[0] for photo in reversed(photos[:12])]
    assert alone == list(reversed(together[:12]))
    with ThreadPoolExecutor(4) as pool:
        parts = [photos[start : start + 10] for start in range(0, 40, 10)]
        answers = pool.map(lambda rows: outputs(loaded.infer(model, rows)), parts)
        assert [row for part in answers for row in part] == together
    single = start_server(threads=1)
    single.deploy(model, artefacts[model])
    assert outputs(single.infer(model, photos)) == together


def test_top1_equals_the_reference(
    loaded: ModelServer, photos: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, photo in enumerate(photos):
        (folder / f"{i:03d}.jpg").write_bytes(photo)
    out = tmp_path / "reference.jsonl"
    monkeypatch.setattr("sys.argv", ["reference_labels", "squeezenet1.1", str(folder), str(out)])
    assert reference_labels.main() == 0
    lines = [
        f'{{"file": "{i:03d}.jpg", "index": {top1(row)}}}'
        for i, row in enumerate(outputs(loaded.infer("squeezenet1.1", photos)))
    ]
    assert out.read_text().splitlines() == lines


def test_efficientnet_equals_the_reference(photos: list[bytes], tmp_path: Path) -> None:
    """Compares the preprocessing alone, without a server."""
    import onnxruntime

    for name in ("efficientnet-lite0", "efficientnet-lite2"):
        model = registry()[name]
        artefact = train_model(model, tmp_path).artefact
        runner = open_model(model, artefact).runner
        session = onnxruntime.InferenceSession(str(artefact), providers=["CPUExecutionProvider"])
        for photo in photos[:4]:
            (tmp_path / "photo.jpg").write_bytes(photo)
            image = reference_labels.network_input(name, tmp_path / "photo.jpg")
            assert top1(runner.answer(photo)) == session.run(None, {"image": image})[0][0].argmax()
