"""A multilayer perceptron on handwritten digits, really trained in the training phase.

scikit-learn trains; inference is two matrix products in numpy, so that a server that only answers never imports
scikit-learn.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..images import gradient, open_image
from ..mnist import SIDE, digits_file, read_digits
from ..npz import write_npz
from .base import TOP_PARAMETERS, Model, Runner, encode_top

if TYPE_CHECKING:
    import numpy as np

    from ..training_data import Dataset
    from ..training_run import TrainingRun

HIDDEN = 64
EPOCHS = 40
LABELS = tuple(str(digit) for digit in range(10))
SHAPES = {"w1": (SIDE * SIDE, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, 10), "b2": (10,)}


class MnistMlp(Model):
    """Pixels / 255 -> 64 ReLU -> softmax over ten digits; white on black, as MNIST is."""

    name = "mnist-mlp"
    description = "MLP with 64 hidden units, trained by scikit-learn on 5,000 MNIST digits, 28x28 grey"
    platform = "numpy"
    suffix = ".npz"
    dataset = "none"
    parameters = TOP_PARAMETERS

    def require_sources(self) -> None:
        digits_file()

    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        pixels, digits = read_digits()
        classifier = MLPClassifier((HIDDEN,), max_iter=EPOCHS, random_state=run.seed)
        with warnings.catch_warnings():
            # The number of epochs is chosen; scikit-learn would have it run until the loss stands still.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(pixels / 255, digits)
        (w1, w2), (b1, b2) = classifier.coefs_, classifier.intercepts_
        write_npz(run.artefact, {"w1": w1, "b1": b1, "w2": w2, "b2": b2})
        # It is trained on all digits there are, so there is no held-out accuracy to give.
        return {"examples": len(digits), "epochs": EPOCHS, "loss": classifier.loss_}

    def load(self, artefact: Path) -> Runner:
        return _MlpRunner(artefact)

    def canary(self) -> bytes:
        return gradient(SIDE, "L", "PNG")


class _MlpRunner(Runner):
    def __init__(self, artefact: Path) -> None:
        import numpy as np

        with np.load(artefact, allow_pickle=False) as arrays:
            weights = {name: arrays[name].astype("f4") for name in SHAPES}
        for name, shape in SHAPES.items():
            if weights[name].shape != shape:
                raise ValueError(f"{name} has shape {weights[name].shape}, {shape} expected")
        self._w1, self._b1, self._w2, self._b2 = (weights[name] for name in SHAPES)

    def decode(self, content: bytes | memoryview) -> np.ndarray:
        import numpy as np

        image = open_image(content, "L")
        if image.size != (SIDE, SIDE):
            image = image.resize((SIDE, SIDE))
        return np.asarray(image, "f4").reshape(-1) / 255

    def predict(self, decoded: np.ndarray) -> np.ndarray:
        import numpy as np

        hidden = np.maximum(decoded @ self._w1 + self._b1, 0)
        scores = hidden @ self._w2 + self._b2
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()

    def encode(self, predicted: np.ndarray) -> bytes:
        return encode_top(predicted, LABELS, self.parameters["labels"])
