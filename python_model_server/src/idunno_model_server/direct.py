"""The yardstick for answers: `python -m idunno_model_server.direct MODEL DIR OUT.jsonl`.

Runs onnxruntime on every image of a directory, one by one, in the plainest way, and writes {"file","index"} rows
sorted by file. On purpose it shares no decoding, preprocessing or session code with the server (only the conversion
of the weights), so that a mistake there shows as a difference here.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from .errors import MissingPackageError
from .images import image_files
from .models import registry
from .trainer import train_model

# Model -> side in pixels, crop as a share of the short side.
SHAPES = {
    "squeezenet1.1": (227, 227 / 256),
    "efficientnet-lite0": (224, 224 / (224 + 32)),
    "efficientnet-lite2": (260, 260 / (260 + 32)),
}


def network_input(model: str, path: Path) -> np.ndarray:
    side, ratio = SHAPES[model]
    image = Image.open(path).convert("RGB")
    width, height = image.size
    crop = int(ratio * min(width, height))
    left, top = (width - crop + 1) // 2, (height - crop + 1) // 2
    image = image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + crop, top + crop))
    pixels = np.asarray(image, "float32")
    if model == "squeezenet1.1":
        pixels = pixels[:, :, ::-1] - np.array([104.006, 116.669, 122.679], "float32")
    else:
        pixels = (pixels - 127) / 128
    return pixels.transpose(2, 0, 1)[np.newaxis]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.direct", description="Top-1 of onnxruntime alone, file by file."
    )
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("directory", type=Path)
    parser.add_argument("out", type=Path)
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
