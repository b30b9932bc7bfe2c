"""Collects the nodes and weights of one ONNX graph in order, then writes the file.

The order of calls fixes the names, and with them the bytes of the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..errors import ConversionError

OPSET = 17
IR_VERSION = 8
CLASSES = 1000
INPUT = "image"
OUTPUT = "probs"
# These bytes are part of every artefact and so of its version: never change them.
PRODUCER = "build_onnx"

Weight = TypeVar("Weight")


@dataclass(frozen=True)
class GraphInfo:
    """Metadata of the file."""

    name: str
    side: int
    """Of the input, in pixels."""
    preprocess: str
    source: str


class Graph:
    """The nodes of one network, whose last one is its output."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initialisers: list[onnx.TensorProto] = []

    def constant(self, array: np.ndarray | np.float32, name: str | None = None) -> str:
        """Adds a weight and returns its name."""
        name = name or f"w{len(self._initialisers)}"
        self._initialisers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """Adds an operation and returns the name of its output."""
        output = f"t{len(self._nodes) + 1}"
        self._nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def save(self, path: Path, info: GraphInfo) -> None:
        """Writes a classifier: input "image" float32 [N,3,S,S], output "probs" float32 [N,1000]."""
        image = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, info.side, info.side])
        probs = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", CLASSES])
        model = self.model(info.name, image, probs, {"preprocess": info.preprocess, "source": info.source})
        onnx.save(model, str(path))

    def model(
        self, name: str, taken: onnx.ValueInfoProto, given: onnx.ValueInfoProto, properties: Mapping[str, str]
    ) -> onnx.ModelProto:
        """The whole network, checked, with its one input and output."""
        self._nodes[-1].output[0] = given.name
        graph = helper.make_graph(self._nodes, name, [taken], [given], self._initialisers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name=PRODUCER)
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(properties))
        onnx.checker.check_model(model, full_check=True)
        return model


class TrackedWeights(Generic[Weight]):
    """Records which weights the graph uses, so that a forgotten layer fails the conversion."""

    def __init__(self, weights: Mapping[str, Weight], source: Path) -> None:
        self._weights = weights
        self._source = source
        self._used: set[str] = set()

    def __getitem__(self, name: str) -> Weight:
        self._used.add(name)
        return self._weights[name]

    def require_all_used(self) -> None:
        """Raises ConversionError."""
        unused = sorted(set(self._weights) - self._used)
        if unused:
            raise ConversionError(f"{self._source}: unused weights {unused}")
