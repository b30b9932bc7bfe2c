"""Opens untrusted image files as 8-bit pixels, upright and without transparency. Any decoder error becomes a short
RowError.

Pillow's own conversion clips deeper pixels at 255, leaves a photo on its side, and drops transparency, which shows the
colours below it.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from .errors import RowError

if TYPE_CHECKING:
    from PIL import Image as PillowImage

MAX_PIXELS = 64 * 1024 * 1024
"""At most 16 bytes each while they are converted: 1 GB. A file of a few kilobytes can announce more pixels than
fit into memory."""

# Decoders inside Pillow or its bundled libraries. EPS is left out because it starts an external interpreter.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
ERROR_CHARACTERS_MAX = 120
EXIF_ORIENTATION = 0x0112
UPRIGHT = 1

DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
UNSUPPORTED: dict[str, Callable[[bytes], bool]] = {
    "an AVIF image": lambda head: head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"),
    "a HEIC image": lambda head: head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS,
    "a JPEG XL image": lambda head: head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    "a JPEG 2000 image": lambda head: head.startswith((b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")),
    "a PDF file": lambda head: head.startswith(b"%PDF-"),
    "an SVG image": lambda head: head.lstrip().startswith((b"<svg", b"<?xml")),
}


def image_files(folder: Path) -> list[Path]:
    """The files of a folder whose suffix is that of an image, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


@functools.cache
def _pillow() -> ModuleType:
    """Pillow without its own decompression-bomb check, which only warns below twice its limit. MAX_PIXELS is exact."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return Image


def open_image(content: bytes | memoryview, mode: str, background: int = 255) -> PillowImage.Image:
    """Decodes a whole image file to a Pillow mode, "RGB" or "L". Raises RowError.

    `background`, from 0 to 255, is the grey that shows through transparent pixels.
    """
    pillow = _pillow()
    if not len(content):
        raise RowError("empty file")
    try:
        image = pillow.open(io.BytesIO(content), formats=FORMATS)
    except MemoryError:  # the machine's fault, not the row's
        raise
    except Exception:
        raise RowError(_not_an_image(bytes(content[:32]))) from None
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise RowError(f"image has {pixels} pixels, at most {MAX_PIXELS} are allowed")
    try:
        image.load()  # decodes all pixels, and so detects a truncated file
        return _converted(_upright(image), mode, background)
    except MemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:ERROR_CHARACTERS_MAX]
        raise RowError(f"damaged image: {reason}") from None


def _not_an_image(head: bytes) -> str:
    """Names what people often take for an image that can be read."""
    for name, matches in UNSUPPORTED.items():
        if matches(head):
            return f"not an image file that can be read, but {name}: convert it to JPEG or PNG"
    return "not an image file"


def _converted(image: PillowImage.Image, mode: str, background: int) -> PillowImage.Image:
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode in DEEP_MODES:
        return _eight_bits(image).convert(mode)
    if image.has_transparency_data:
        opaque: PillowImage.Image = _pillow().new("RGBA", image.size, (background, background, background, 255))
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert(mode)
    return image.convert(mode)


def _eight_bits(image: PillowImage.Image) -> PillowImage.Image:
    """Scales grey pixels of 16 or more bits. Those of 32 bits and floats do not say what white is: it is 1 (floats),
    255 or 65,535, whichever is the first that no pixel exceeds; other pixels are scaled from their lowest to their
    highest.
    """
    import numpy as np

    pixels = np.asarray(image)
    low, white = 0.0, 65535.0
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        finite = (row[np.isfinite(row)] for row in pixels)
        ends = [(float(row.min()), float(row.max())) for row in finite if row.size] or [(0.0, 0.0)]
        low, highest = min(low for low, _ in ends), max(high for _, high in ends)
        whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        fitting = [white for white in whites if highest <= white]
        low, white = (0.0, fitting[0]) if low >= 0 and fitting else (low, highest)
    factor = 255 / max(white - low, 1e-9)
    scaled = np.empty(pixels.shape, "u1")
    for row, out in zip(pixels, scaled, strict=True):  # row by row: doubles of a whole image are 8 times its bytes
        out[:] = np.round(np.nan_to_num((row.astype("f8") - low) * factor).clip(0, 255))
    grey: PillowImage.Image = _pillow().fromarray(scaled)
    return grey


def _upright(image: PillowImage.Image) -> PillowImage.Image:
    """Turned as the camera says. TIFF files are turned by Pillow itself."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, UPRIGHT)
    except Exception:  # the pixels are readable all the same
        return image
    if orientation == UPRIGHT:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def gradient(side: int, mode: str, image_format: str) -> bytes:
    """A small generated image file for canaries, the same bytes every time."""
    buffer = io.BytesIO()
    _pillow().linear_gradient("L").resize((side, side)).convert(mode).save(buffer, image_format)
    return buffer.getvalue()
