"""A BERT encoder as an ONNX graph, from the safetensors that Hugging Face's transformers writes.

The graph takes token ids and no mask: texts that run together have the same length, see `text_encoder`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import load_file

from ..errors import ConversionError
from .onnx_graph import Graph, TrackedWeights

INPUT = "input_ids"
OUTPUT = "last_hidden_state"
PREFIX = "bert."
UNUSED = ("pooler.", "cls.")
"""What weights files have beside the encoder."""
WANTED = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}


class _Builder:
    """Adds the layers of an encoder. Each method takes and returns the name of a tensor."""

    def __init__(self, graph: Graph, weights: TrackedWeights[np.ndarray], config: Mapping[str, Any]) -> None:
        self._graph = graph
        self._weights = weights
        self._width = int(config["hidden_size"])
        self._heads = int(config["num_attention_heads"])
        self._epsilon = float(config["layer_norm_eps"])

    def _constant(self, array: Any) -> str:
        return self._graph.constant(np.asarray(array))

    def _norm(self, x: str, name: str) -> str:
        scale = self._constant(self._weights[f"{name}.LayerNorm.weight"])
        bias = self._constant(self._weights[f"{name}.LayerNorm.bias"])
        return self._graph.op("LayerNormalization", [x, scale, bias], axis=-1, epsilon=self._epsilon)

    def _affine(self, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        return self._graph.op("Add", [self._graph.op("MatMul", [x, self._constant(weight.T)]), self._constant(bias)])

    def _dense(self, x: str, name: str) -> str:
        return self._affine(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def embed(self) -> str:
        """The words, their places, and the first of the two kinds of text, which is the only one."""
        op = self._graph.op
        words = op("Gather", [self._constant(self._weights["embeddings.word_embeddings.weight"]), INPUT])
        kinds = self._weights["embeddings.token_type_embeddings.weight"]
        places = self._constant(self._weights["embeddings.position_embeddings.weight"] + kinds[0])
        length = op("Shape", [INPUT], start=1, end=2)
        places = op("Slice", [places, self._constant(np.array([0])), length, self._constant(np.array([0]))])
        return self._norm(op("Add", [words, places]), "embeddings")

    def layer(self, x: str, name: str) -> str:
        attended = self._dense(self._attention(x, f"{name}.attention.self"), f"{name}.attention.output.dense")
        x = self._norm(self._graph.op("Add", [attended, x]), f"{name}.attention.output")
        inner = self._gelu(self._dense(x, f"{name}.intermediate.dense"))
        return self._norm(self._graph.op("Add", [self._dense(inner, f"{name}.output.dense"), x]), f"{name}.output")

    def _attention(self, x: str, name: str) -> str:
        """One product makes queries, keys and values; the queries are scaled in their weights."""
        op, part = self._graph.op, self._width // self._heads
        scales = {"query": np.float32(1 / math.sqrt(part)), "key": np.float32(1), "value": np.float32(1)}
        weight = np.concatenate([self._weights[f"{name}.{kind}.weight"] * scale for kind, scale in scales.items()])
        bias = np.concatenate([self._weights[f"{name}.{kind}.bias"] * scale for kind, scale in scales.items()])
        shape = self._constant(np.array([0, 0, 3, self._heads, part]))
        heads = op("Transpose", [op("Reshape", [self._affine(x, weight, bias), shape])], perm=[2, 0, 3, 1, 4])
        query, key, value = (op("Gather", [heads, self._constant(np.array([index]))], axis=0) for index in range(3))
        scores = op("Softmax", [op("MatMul", [query, op("Transpose", [key], perm=[0, 1, 2, 4, 3])])], axis=-1)
        mixed = op("Transpose", [op("MatMul", [scores, value])], perm=[1, 3, 0, 2, 4])
        return op("Reshape", [mixed, self._constant(np.array([0, 0, self._width]))])

    def _gelu(self, x: str) -> str:
        op = self._graph.op
        grown = op("Erf", [op("Div", [x, self._constant(np.float32(math.sqrt(2)))])])
        grown = op("Mul", [x, op("Add", [grown, self._constant(np.float32(1))])])
        return op("Mul", [grown, self._constant(np.float32(0.5))])


def require_bert(config: Mapping[str, Any]) -> None:
    """Raises ConversionError for a config.json of another kind of network."""
    for key, wanted in WANTED.items():
        if config.get(key, wanted) != wanted:
            raise ConversionError(f"its {key} is {config[key]!r}, and only {wanted!r} can be converted")


def convert(name: str, path: Path, config: Mapping[str, Any], properties: Mapping[str, str]) -> onnx.ModelProto:
    """Raises ConversionError for weights that are not of such an encoder."""
    require_bert(config)
    found = {key.removeprefix(PREFIX): array for key, array in load_file(path).items()}
    kept = {key: array for key, array in found.items() if array.dtype.kind == "f" and not key.startswith(UNUSED)}
    weights = TrackedWeights({key: array.astype("f4") for key, array in kept.items()}, Path(path.name))
    graph = Graph()
    try:
        builder = _Builder(graph, weights, config)
        x = builder.embed()
        for number in range(int(config["num_hidden_layers"])):
            x = builder.layer(x, f"encoder.layer.{number}")
    except KeyError as error:
        raise ConversionError(f"{path.name} has no {error}") from None
    weights.require_all_used()
    taken = helper.make_tensor_value_info(INPUT, TensorProto.INT64, ["texts", "tokens"])
    given = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["texts", "tokens", int(config["hidden_size"])])
    return graph.model(name, taken, given, properties)
