"""The runtime `sentence-transformers`: a folder as that library saves one, without the library and without torch.

modules.json names the folder's parts: a Transformer, a Pooling, and a Normalize or none. The network is
`onnx/model.onnx` or `model.onnx`, or else made of `model.safetensors` if that is BERT's. A row is a text in UTF-8, the
answer a list of numbers. The package's own requirements bring tokenizers and onnxruntime, and onnx and safetensors if
there is no ONNX file.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import ConversionError, ModelFileError
from ..models.batch_model import BatchModel, SetupContext
from ..text_encoder import TRUNCATE, EncoderSettings, Pooling, TextEncoder
from .base import MadeModel, packaged

if TYPE_CHECKING:
    import numpy as np

NETWORKS = ("onnx/model.onnx", "model.onnx")
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
TOKENS_MAX = 512
"""Where the folder says nothing."""
POOLING_PREFIX = "pooling_mode_"
POOLINGS: Mapping[str, Pooling] = {
    "mean_tokens": "mean",
    "cls_token": "cls",
    "max_tokens": "max",
    "mean": "mean",
    "cls": "cls",
    "max": "max",
}
"""By the key that is true, as `pooling_mode_mean_tokens`, or by the value of `pooling_mode`."""
CANARY = "A sentence to begin with."


class SentenceEmbeddings(BatchModel):
    """A text encoder in a package's folder."""

    description = "a text's vector"
    platform = "onnxruntime_onnx"
    batch_max = 256
    parameters = MappingProxyType({"truncate": TRUNCATE})
    network_file: str | None
    settings: EncoderSettings
    canary_text: str

    def setup(self, context: SetupContext) -> None:
        folder = context.folder
        network = str(folder / self.network_file) if self.network_file else _converted(folder)
        tokenizer = (folder / TOKENIZER).read_text(encoding="utf-8")
        self.encoder = TextEncoder(network, self.settings, tokenizer, context.device)

    def decode(self, content: bytes | memoryview) -> list[int]:
        return self.encoder.tokens(content, bool(self.options["truncate"]))

    def predict(self, inputs: list[list[int]]) -> list[np.ndarray]:
        return self.encoder.vectors(inputs)

    def canary(self) -> bytes:
        return self.canary_text.encode()


def _converted(folder: Path) -> bytes:
    from ..convert.bert import convert

    config = json.loads((folder / "config.json").read_bytes())
    content: bytes = convert("sentences", folder / WEIGHTS, config, {}).SerializeToString()
    return content


def _settings(folder: Path, modules: Path) -> EncoderSettings:
    """Raises ModelFileError for parts that this runtime has not."""
    paths: dict[str, str] = {}
    for module in _read(modules):
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise ModelFileError(
                f"it has a part {module['type']}, and this runtime has Transformer, Pooling and Normalize: "
                "write a model.py"
            )
        paths[kind] = str(module["path"])
    if "Pooling" not in paths:
        raise ModelFileError("it has no Pooling")
    pooling = _read(folder / paths["Pooling"] / "config.json")
    chosen = [key.removeprefix(POOLING_PREFIX) for key, on in pooling.items() if key.startswith(POOLING_PREFIX) and on]
    chosen = chosen or [str(pooling.get("pooling_mode"))]
    kind_of_pooling = POOLINGS.get(chosen[0]) if len(chosen) == 1 else None
    if kind_of_pooling is None:
        raise ModelFileError(f"its pooling is {' and '.join(chosen)}, and this runtime has {', '.join(POOLINGS)}")
    sizes = folder / "sentence_bert_config.json"
    tokens_max = _read(sizes).get("max_seq_length") if sizes.is_file() else None
    return EncoderSettings(int(tokens_max or TOKENS_MAX), kind_of_pooling, "Normalize" in paths)


def _require_convertible(folder: Path) -> None:
    """Raises ModelFileError for weights of a network that is not BERT's."""
    from ..convert.bert import require_bert

    try:
        require_bert(_read(folder / "config.json"))
    except ConversionError as error:
        raise ModelFileError(f"it has no {' or '.join(NETWORKS)}, and {error}") from None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelFileError(f"it needs {path.name}, which is not in the package") from None
    except ValueError as error:
        raise ModelFileError(f"{path.name} is not JSON: {error}") from None


def sentence_model(name: str, files: Path, entry: str, settings: Mapping[str, Any]) -> MadeModel:
    network = next((network for network in NETWORKS if (files / network).is_file()), None)
    needed = [TOKENIZER] if network else [TOKENIZER, WEIGHTS, "config.json"]
    for file in needed:
        if not (files / file).is_file():
            raise ModelFileError(f"it needs {file}, which is not in the package")
    modules = ["onnxruntime", "tokenizers"] if network else ["onnxruntime", "tokenizers", "onnx", "safetensors"]
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModelFileError(f"{module} is not installed in the model's environment: name it in requirements.txt")
    if network is None:
        _require_convertible(files)
    attributes = {
        "__module__": __name__,
        "network_file": network,
        "settings": _settings(files, files / entry),
        "canary_text": str(settings.get("canary", CANARY)),
    }
    return MadeModel(packaged(type("SentenceEmbeddings", (SentenceEmbeddings,), attributes), name, files, settings))
