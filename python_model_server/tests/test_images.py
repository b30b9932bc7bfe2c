"""Images are read as they look: upright, at their full depth, and without transparency. Pillow makes the right
values.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from conftest import ModelServer
from PIL import Image, ImageOps
from wire import binary_response, outputs, top1

from idunno_model_server.errors import RowError
from idunno_model_server.images import open_image

ORIENTATION = 0x0112
TURNS = range(1, 9)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def turned(photo: Image.Image, orientation: int, file_format: str, **options: Any) -> bytes:
    """A file that looks like `photo`, stored as a camera held in another way stores it."""
    undo = {6: 8, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[ORIENTATION] = undo
    flat = photo.copy()
    flat.info.pop("exif", None)
    stand_in = Image.open(io.BytesIO(encoded(flat, "PNG", exif=exif)))
    stored = ImageOps.exif_transpose(stand_in)
    stored.info.clear()
    exif[ORIENTATION] = orientation
    return encoded(stored, file_format, exif=exif, **options)


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_is_turned_as_the_camera_says(photos: list[bytes], file_format: str, orientation: int) -> None:
    photo = Image.open(io.BytesIO(photos[0])).convert("RGB").resize((40, 30))
    options = {"lossless": True} if file_format == "WEBP" else {}
    found = open_image(turned(photo, orientation, file_format, **options), "RGB")
    assert found.size == (40, 30)
    assert np.array_equal(np.asarray(found), np.asarray(photo))


@pytest.mark.parametrize("orientation", TURNS)
def test_a_turned_photo_has_the_same_answer(loaded: ModelServer, photos: list[bytes], orientation: int) -> None:
    photo = Image.open(io.BytesIO(photos[0])).convert("RGB").resize((320, 240))
    upright, other = outputs(loaded.infer("squeezenet1.1", [encoded(photo, "PNG"), turned(photo, orientation, "PNG")]))
    assert upright == other


def test_a_photo_whose_exif_cannot_be_read_is_read_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(_image: Image.Image) -> Image.Exif:
        raise struct.error("unpack requires a buffer of 4 bytes")

    monkeypatch.setattr(Image.Image, "getexif", damaged)
    assert open_image(encoded(Image.new("RGB", (4, 2), "red"), "PPM"), "RGB").size == (4, 2)


def grey() -> np.ndarray:
    """All 256 shades of grey, more dark ones than light ones."""
    return (np.linspace(0, 1, 28 * 28) ** 2 * 255).round().astype("u1").reshape(28, 28)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(file_format: str) -> None:
    deep = Image.fromarray(grey().astype("u2") * 257)
    content = encoded(deep, file_format)
    for mode in ("L", "RGB"):
        found = open_image(content, mode)
        assert np.array_equal(np.asarray(found), np.asarray(Image.fromarray(grey()).convert(mode)))


def test_a_dark_picture_of_sixteen_bits_stays_dark() -> None:
    content = encoded(Image.fromarray(np.full((2, 2), 200, "u2")), "PNG")
    assert np.asarray(open_image(content, "L")).max() == 1


def test_a_digit_of_sixteen_bits_has_the_same_answer(loaded: ModelServer, digits: list[bytes]) -> None:
    deep = [
        encoded(Image.fromarray(np.asarray(Image.open(io.BytesIO(digit))).astype("u2") * 257), "PNG")
        for digit in digits[:20]
    ]
    found = outputs(loaded.infer("mnist-mlp", deep))
    assert found == outputs(loaded.infer("mnist-mlp", digits[:20]))
    assert sum(top1(row) == number % 10 for number, row in enumerate(found)) >= 18


@pytest.mark.parametrize(
    "pixels",
    [
        grey().astype("f4") / 255,
        grey().astype("f4"),
        grey().astype("f4") * 257,
        grey().astype("f4") * 1e6 - 3e6,
        grey().astype("i4"),
        grey().astype("i4") * 257,
        grey().astype("i4") * 1_000_000 - 5_000_000,
    ],
    ids=["unit", "f255", "f65535", "f", "i255", "i65535", "i"],
)
def test_floats_and_wide_integers_are_scaled(pixels: np.ndarray) -> None:
    assert np.array_equal(np.asarray(open_image(encoded(Image.fromarray(pixels), "TIFF"), "L")), grey())


def test_pixels_that_are_no_numbers_are_black() -> None:
    pixels = np.array([[np.nan, np.inf], [0, 1]], "f4")
    found = np.asarray(open_image(encoded(Image.fromarray(pixels), "TIFF"), "L"))
    assert found.tolist() == [[0, 255], [0, 255]]
    nothing = np.full((2, 2), np.nan, "f4")
    assert np.asarray(open_image(encoded(Image.fromarray(nothing), "TIFF"), "L")).max() == 0


def palette_with_transparency() -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    return encoded(image, "PNG", transparency=0)


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (encoded(Image.new("RGBA", (1, 1), (10, 20, 30, 255)), "PNG"), [[10, 20, 30]]),
        (encoded(Image.new("RGBA", (1, 1), (10, 20, 30, 0)), "PNG"), [[255, 255, 255]]),
        (encoded(Image.new("RGBA", (1, 1), (0, 0, 0, 51)), "PNG"), [[204, 204, 204]]),
        (encoded(Image.new("LA", (1, 1), (10, 0)), "PNG"), [[255, 255, 255]]),
        (encoded(Image.new("LA", (1, 1), (10, 255)), "PNG"), [[10, 10, 10]]),
        (palette_with_transparency(), [[255, 255, 255], [0, 0, 255]]),
        (encoded(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), [[255, 255, 255]]),
        (encoded(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), "TIFF"), [[0, 255, 255]]),
        (encoded(Image.new("CMYK", (1, 1), (0, 0, 0, 0)), "JPEG"), [[255, 255, 255]]),
        (encoded(Image.new("1", (1, 1), 1), "PNG"), [[255, 255, 255]]),
    ],
)
def test_colours_are_those_that_a_viewer_shows_on_white(content: bytes, pixels: list[list[int]]) -> None:
    assert np.asarray(open_image(content, "RGB")).reshape(-1, 3).tolist() == pixels


def test_a_digit_on_a_transparent_ground_is_on_black(loaded: ModelServer, digits: list[bytes]) -> None:
    """mnist-mlp is trained on white digits on black."""
    cut_out = []
    for digit in digits[:20]:
        ink = Image.open(io.BytesIO(digit))
        cut_out.append(encoded(Image.merge("LA", (Image.new("L", ink.size, 255), ink)), "PNG"))
    found = outputs(loaded.infer("mnist-mlp", cut_out))
    assert found == outputs(loaded.infer("mnist-mlp", digits[:20]))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC image"),
        (encoded(Image.new("RGB", (16, 16)), "AVIF"), "an AVIF image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (encoded(Image.new("RGB", (8, 8)), "JPEG2000"), "a JPEG 2000 image"),
        (b"%PDF-1.7\n", "a PDF file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG image"),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes, name: str) -> None:
    with pytest.raises(RowError) as error:
        open_image(content, "RGB")
    assert str(error.value) == f"not an image file that can be read, but {name}: convert it to JPEG or PNG"


def test_a_heic_photo_says_so_in_its_row(loaded: ModelServer) -> None:
    _, tensors = binary_response(loaded.infer("squeezenet1.1", [b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"]))
    assert b"HEIC" in tensors["error"][0]
