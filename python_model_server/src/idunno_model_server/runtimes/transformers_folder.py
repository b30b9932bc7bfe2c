"""The runtime `transformers`: a folder as that library saves one, with config.json, *.safetensors and tokenizer.json.

The library's pipeline runs it, from the package's own requirements, which bring transformers and torch. Nothing is
downloaded, and code in the folder is not run. A row is a text in UTF-8, or a JSON string.

Texts with as many tokens as each other run together, so that nothing is padded and a text's answer does not depend on
the texts beside it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import ModelFileError, RowError
from ..json_codec import JSONDecodeError, loads
from ..models.batch_model import BatchModel, SetupContext
from ..text_encoder import TRUNCATE
from .base import MadeModel, packaged

CLASSIFICATION, FEATURES = "text-classification", "feature-extraction"
TASKS = (CLASSIFICATION, FEATURES)
NEEDED = ("config.json", "tokenizer.json")
MODULES = ("transformers", "torch")
DIGITS = 6
"""Decimal digits of an answer: the last ones depend on the processor."""
CANARY = "A sentence to begin with."


class TransformersFolder(BatchModel):
    """A network in a package's folder."""

    description = "a network of transformers"
    platform = "transformers"
    parameters = MappingProxyType({"truncate": TRUNCATE})
    task: str
    tokens_max: int | None
    canary_text: str

    def setup(self, context: SetupContext) -> None:
        # Before the library is imported: it would ask a hub for what it does not find here.
        os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
        import torch
        from transformers import pipeline

        torch.set_num_threads(1)
        folder = str(context.folder)
        self.pipeline = pipeline(self.task, model=folder, tokenizer=folder, device=context.device)
        self.tokenizer = self.pipeline.tokenizer

    def decode(self, content: bytes | memoryview) -> str:
        return _text(bytes(content))

    def predict(self, inputs: list[str]) -> list[Any]:
        answers: list[Any] = [None] * len(inputs)
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for index, text in enumerate(inputs):
            tokens = len(self.tokenizer(text)["input_ids"])
            if self.tokens_max is not None and tokens > self.tokens_max:
                if not self.options["truncate"]:
                    answers[index] = RowError(f"the text has more than {self.tokens_max} tokens")
                    continue
                tokens = self.tokens_max
            by_length[tokens].append(index)
        cut = {"truncation": True, "max_length": self.tokens_max} if self.tokens_max is not None else {}
        options = {"tokenize_kwargs": cut} if self.task == FEATURES else cut
        for indices in by_length.values():
            texts = [inputs[index] for index in indices]
            found = self.pipeline(texts, batch_size=len(texts), **options)
            for index, answer in zip(indices, found, strict=True):
                answers[index] = self._answer(answer)
        return answers

    def _answer(self, found: Any) -> Any:
        if self.task == CLASSIFICATION:
            return {"label": found["label"], "score": round(float(found["score"]), DIGITS)}
        import numpy as np

        return np.asarray(found, "f8")[0].mean(axis=0).round(DIGITS)

    def canary(self) -> bytes:
        return self.canary_text.encode()


def _text(row: bytes) -> str:
    try:
        text = row.decode()
    except UnicodeDecodeError as error:
        raise RowError(f"the row is no text: byte {error.start} is not UTF-8") from None
    if text.startswith('"'):
        with contextlib.suppress(JSONDecodeError):  # a text that begins with a quotation mark
            text = str(loads(text))
    if not text.strip():
        raise RowError("the text is empty")
    return text


def _task(config: Mapping[str, Any], wanted: object) -> str:
    """What model.toml says, or else what the name of the network's class does. Raises ModelFileError."""
    if wanted is not None:
        if wanted not in TASKS:
            raise ModelFileError(f"task {wanted!r} is not among those of this runtime: {', '.join(TASKS)}")
        return str(wanted)
    architectures = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return CLASSIFICATION
    if any(name.endswith("Model") for name in architectures):
        return FEATURES
    shown = ", ".join(architectures) or "none"
    raise ModelFileError(
        f"its architectures ({shown}) show no task of this runtime ({', '.join(TASKS)}): name one in model.toml, as "
        f'task = "{FEATURES}", or write a model.py'
    )


def _tokens_max(folder: Path, config: Mapping[str, Any]) -> int | None:
    """The longest text that the network takes; None if the folder does not say."""
    settings = folder / "tokenizer_config.json"
    said = _read(settings).get("model_max_length") if settings.is_file() else None
    found = [value for value in (said, config.get("max_position_embeddings")) if isinstance(value, int)]
    return min(found, default=None)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelFileError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelFileError(f"{path.name} is no object")
    return found


def transformers_model(name: str, files: Path, _entry: str, settings: Mapping[str, Any]) -> MadeModel:
    for file in NEEDED:
        if not (files / file).is_file():
            raise ModelFileError(f"it needs {file}, which is not in the package")
    if not any(files.glob("*.safetensors")):
        raise ModelFileError("it needs weights in a .safetensors file: those of other formats would run code")
    for module in MODULES:
        if importlib.util.find_spec(module) is None:
            raise ModelFileError(f"{module} is not installed in the model's environment: name it in requirements.txt")
    config = _read(files / "config.json")
    if "auto_map" in config:
        raise ModelFileError("its network is code in the folder, which this runtime does not run: write a model.py")
    attributes = {
        "__module__": __name__,
        "task": _task(config, settings.get("task")),
        "tokens_max": _tokens_max(files, config),
        "canary_text": str(settings.get("canary", CANARY)),
    }
    return MadeModel(packaged(type("TransformersFolder", (TransformersFolder,), attributes), name, files, settings))
