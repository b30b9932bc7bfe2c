"""A multilayer perceptron for handwritten digits, trained in the training phase.

scikit-learn trains it. Inference is two matrix products in numpy, so that a server that only answers never imports
scikit-learn. They are in double precision: how a matrix product adds up depends on the number of rows, and the
rounding of the probabilities hides that only if it is far below their last digit.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..array_artefact import load_arrays, save_arrays
from ..images import gradient, open_image
from ..package_data import DIGIT_SIDE, digits_file, read_digits, require_train_extra
from .base import TOP_PARAMETERS, Model, Ranking, Runner, encode_ranking, rank

if TYPE_CHECKING:
    import numpy as np

    from ..training_data import Dataset
    from ..training_run import TrainingRun

HIDDEN = 64
EPOCHS = 40
LABELS = tuple(str(digit) for digit in range(10))
SHAPES = {"w1": (DIGIT_SIDE * DIGIT_SIDE, HIDDEN), "b1": (HIDDEN,), "w2": (HIDDEN, 10), "b2": (10,)}


class MnistMlp(Model):
    """Pixels / 255 -> 64 ReLU -> softmax over ten digits; white on black, like MNIST."""

    name = "mnist-mlp"
    description = "MLP with 64 hidden units, trained by scikit-learn on 5,000 MNIST digits, 28x28 greyscale"
    platform = "numpy"
    suffix = ".safetensors"
    dataset = "none"
    parameters = TOP_PARAMETERS

    def require_sources(self) -> None:
        digits_file()
        require_train_extra("sklearn")

    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        table = read_digits()
        classifier = MLPClassifier((HIDDEN,), max_iter=EPOCHS, random_state=run.seed)
        with warnings.catch_warnings():
            # The number of epochs is deliberate; scikit-learn would rather continue until the loss stops falling.
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier.fit(table.pixels / 255, table.digits)
        w1, w2 = classifier.coefs_
        b1, b2 = classifier.intercepts_
        save_arrays(run.artefact, {"w1": w1, "b1": b1, "w2": w2, "b2": b2}, LABELS)
        # All digits are used for training, so there is no held-out accuracy to report.
        return {"examples": len(table.digits), "epochs": EPOCHS, "loss": classifier.loss_}

    def load(self, artefact: Path) -> Runner:
        return _MlpRunner(artefact)

    def canary(self) -> bytes:
        return gradient(DIGIT_SIDE, "L", "PNG")


class _MlpRunner(Runner):
    def __init__(self, artefact: Path) -> None:
        loaded = load_arrays(artefact)
        loaded.require_shapes(SHAPES)
        self._labels = loaded.labels
        self._w1 = loaded.arrays["w1"].astype("f8")
        self._b1 = loaded.arrays["b1"].astype("f8")
        self._w2 = loaded.arrays["w2"].astype("f8")
        self._b2 = loaded.arrays["b2"].astype("f8")

    def decode(self, content: bytes | memoryview) -> np.ndarray:
        import numpy as np

        image = open_image(content, "L", background=0)
        if image.size != (DIGIT_SIDE, DIGIT_SIDE):
            image = image.resize((DIGIT_SIDE, DIGIT_SIDE))
        return np.asarray(image).reshape(-1)

    def predict_batch(self, decoded: list[np.ndarray]) -> list[Ranking]:
        import numpy as np

        pixels = np.array(decoded, "f8") / 255
        hidden = np.maximum(pixels @ self._w1 + self._b1, 0)
        scores = hidden @ self._w2 + self._b2
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return rank(powers / powers.sum(axis=1, keepdims=True))

    def encode(self, predicted: Ranking) -> bytes:
        return encode_ranking(predicted, self._labels, int(self.parameters["labels"]))
