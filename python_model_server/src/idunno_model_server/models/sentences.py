"""all-minilm-l6-v2: a sentence's vector, with the pretrained weights of sentence-transformers/all-MiniLM-L6-v2.

The artefact is one ONNX file: its metadata have the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ..json_codec import dumps
from ..package_data import data_file, require_train_extra
from ..text_encoder import TOKENIZER_PROPERTY, TRUNCATE, EncoderSettings, TextEncoder
from .base import Model, Runner

if TYPE_CHECKING:
    import numpy as np

    from ..training_data import Dataset
    from ..training_run import TrainingRun

WEIGHTS = "all-minilm-l6-v2.safetensors"
CONFIG = "all-minilm-l6-v2.config.json"
TOKENIZER = "all-minilm-l6-v2.tokenizer.json"
SETTINGS = EncoderSettings(tokens_max=256, pooling="mean", normalise=True)


class AllMiniLm(Model):
    """A text in UTF-8 -> 384 numbers. Its training is a conversion, the same for every seed."""

    name = "all-minilm-l6-v2"
    description = "a sentence's vector of 384 numbers, for search and grouping; needs fetch_data --optional"
    platform = "onnxruntime_onnx"
    suffix = ".onnx"
    dataset = "none"
    parameters = MappingProxyType({"truncate": TRUNCATE})
    batch_max = 256

    def require_sources(self) -> None:
        data_file(WEIGHTS)
        require_train_extra("onnx", "tokenizers")

    def train(self, dataset: Dataset | None, run: TrainingRun) -> Mapping[str, float]:
        from ..convert.bert import convert

        properties = {TOKENIZER_PROPERTY: data_file(TOKENIZER).read_text(), "source": WEIGHTS}
        config = json.loads(data_file(CONFIG).read_bytes())
        model = convert(self.name, data_file(WEIGHTS), config, properties)
        run.artefact.write_bytes(model.SerializeToString())
        return {}

    def load(self, artefact: Path) -> Runner:
        return _SentenceRunner(artefact)

    def canary(self) -> bytes:
        return b"A sentence to begin with."


class _SentenceRunner(Runner):
    def __init__(self, artefact: Path) -> None:
        self._encoder = TextEncoder(str(artefact), SETTINGS)

    def decode(self, content: bytes | memoryview) -> list[int]:
        return self._encoder.tokens(content, bool(self.parameters["truncate"]))

    def predict_batch(self, decoded: list[list[int]]) -> list[np.ndarray]:
        return self._encoder.vectors(decoded)

    def encode(self, predicted: np.ndarray) -> bytes:
        return dumps(predicted.tolist())
