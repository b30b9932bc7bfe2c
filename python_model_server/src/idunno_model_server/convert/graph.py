"""Collects the nodes and weights of one ONNX graph in order, then writes the file.

The order of calls fixes the names, and with them the bytes of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
CLASSES = 1000
INPUT = "image"
OUTPUT = "probs"
# Part of the file's bytes, and so of every artefact's version: it never changes.
PRODUCER = "build_onnx"


class Graph:
    """One classifier: input "image" float32 [N,3,S,S], output "probs" float32 [N,1000]."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._initialisers: list[onnx.TensorProto] = []

    def constant(self, array: Any, name: str | None = None) -> str:
        """Adds a weight and returns its name."""
        name = name or f"w{len(self._initialisers)}"
        self._initialisers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """Adds an operation and returns the name of its output."""
        output = f"t{len(self._nodes) + 1}"
        self._nodes.append(helper.make_node(op_type, inputs, [output], **attributes))
        return output

    def save(self, path: Path, side: int, name: str, preprocess: str, source: str) -> None:
        """Writes the model; the node added last becomes the output."""
        self._nodes[-1].output[0] = OUTPUT
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", 3, side, side])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", CLASSES])],
            self._initialisers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name=PRODUCER)
        model.ir_version = IR_VERSION
        helper.set_model_props(model, {"preprocess": preprocess, "source": source})
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))


class TakenWeights:
    """Hands out weights and remembers which were taken, so that a forgotten layer fails the conversion."""

    def __init__(self, weights: dict[str, Any], source: Path) -> None:
        self._weights = weights
        self._source = source
        self._taken: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self._taken.add(name)
        return self._weights[name]

    def require_all_taken(self) -> None:
        """Raises ValueError when the graph left a weight unused."""
        unused = sorted(set(self._weights) - self._taken)
        if unused:
            raise ValueError(f"{self._source}: unused weights {unused}")
