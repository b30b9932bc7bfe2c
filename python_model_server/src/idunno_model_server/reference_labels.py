"""The reference for answers: `python -m idunno_model_server.reference_labels MODEL DIR OUT.jsonl`.

Runs onnxruntime on every image of a folder, one by one and as simply as possible, and writes {"file","index"} rows
sorted by file. It deliberately shares no decoding, preprocessing or session code with the server, only the conversion
of the weights, so that a mistake in the server shows as a difference.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from .errors import MissingPackageError
from .images import image_files
from .models import registry
from .training_result import train_model


@dataclass(frozen=True)
class InputShape:
    """How a network wants its images cut."""

    side: int
    """In pixels."""
    crop_ratio: float
    """The side of the centred crop as a share of the image's shorter side."""


SHAPES = {
    "squeezenet1.1": InputShape(227, 227 / 256),
    "efficientnet-lite0": InputShape(224, 224 / (224 + 32)),
    "efficientnet-lite2": InputShape(260, 260 / (260 + 32)),
}


def network_input(model: str, path: Path) -> np.ndarray:
    """One image file as float32 [1, 3, side, side]."""
    shape = SHAPES[model]
    image = Image.open(path).convert("RGB")
    width, height = image.size
    crop = int(shape.crop_ratio * min(width, height))
    left = (width - crop + 1) // 2
    top = (height - crop + 1) // 2
    size = (shape.side, shape.side)
    image = image.resize(size, Image.Resampling.BICUBIC, box=(left, top, left + crop, top + crop))
    pixels = np.asarray(image, "float32")
    if model == "squeezenet1.1":
        pixels = pixels[:, :, ::-1] - np.array([104.006, 116.669, 122.679], "float32")
    else:
        pixels = (pixels - 127) / 128
    return pixels.transpose(2, 0, 1)[np.newaxis]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.reference_labels", description="Top-1 of onnxruntime alone, file by file."
    )
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("directory", type=Path, help="folder with the image files")
    parser.add_argument("out", type=Path, help="JSONL file to write")
    arguments = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        with tempfile.TemporaryDirectory() as folder:
            artefact = train_model(registry()[arguments.model], Path(folder)).artefact
            session = onnxruntime.InferenceSession(str(artefact), options, providers=["CPUExecutionProvider"])
    except MissingPackageError as error:
        print(error, file=sys.stderr)
        return 1
    files = image_files(arguments.directory)
    with arguments.out.open("w") as out:
        for path in files:
            probabilities = session.run(None, {"image": network_input(arguments.model, path)})[0][0]
            out.write(json.dumps({"file": path.name, "index": int(probabilities.argmax())}) + "\n")
    print(f"{len(files)} rows in {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
