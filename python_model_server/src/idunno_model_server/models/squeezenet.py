"""SqueezeNet 1.1: the cheapest of the ImageNet classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..imagenet import ImageNetModel, centre_crop
from ..packages import package_file

if TYPE_CHECKING:
    import numpy as np

SIDE = 227
CROP_RATIO = 227 / 256
MEANS_BGR = (104.006, 116.669, 122.679)


class SqueezeNet(ImageNetModel):
    """BGR input with the means subtracted and no scaling, as the Caffe original wants it."""

    name = "squeezenet1.1"
    description = "SqueezeNet 1.1, ImageNet-1k, 227x227, real weights from the ndf package"

    def _weights(self) -> Path:
        return package_file("ndf", "example_models/weights/squeezenet_weights.pkl")

    def require_sources(self) -> None:
        self._weights()

    def convert(self, artefact: Path) -> None:
        from ..convert.squeezenet import convert

        convert(self._weights(), artefact)

    def preprocess(self, content: bytes | memoryview) -> np.ndarray:
        import numpy as np

        bgr = centre_crop(content, SIDE, CROP_RATIO)[..., ::-1].transpose(2, 0, 1)
        planes = np.empty(bgr.shape, "f4")  # written once, in the network's layout
        return np.subtract(bgr, np.array(MEANS_BGR, "f4")[:, None, None], out=planes)
