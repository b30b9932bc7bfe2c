"""SqueezeNet 1.1 as an ONNX graph, from a numpy pickle; softmax inside."""

from __future__ import annotations

from pathlib import Path

from .graph import INPUT, Graph, TakenWeights
from .weights import read_numpy_pickle

SIDE = 227


def convert(weights_path: Path, out_path: Path) -> None:
    """Writes `out_path`. Raises ValueError for a file with layers that SqueezeNet 1.1 does not have."""
    weights = TakenWeights(read_numpy_pickle(weights_path), weights_path)
    graph = Graph()

    def conv(x: str, name: str, kernel: int, stride: int = 1, activate: bool = True) -> str:
        filters, bias = weights[name]  # filters are height, width, in, out
        y = graph.op(
            "Conv",
            [x, graph.constant(filters.transpose(3, 2, 0, 1).astype("f4")), graph.constant(bias.astype("f4"))],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            auto_pad="SAME_UPPER",
        )
        return graph.op("Relu", [y]) if activate else y

    def max_pool(x: str) -> str:
        return graph.op("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2])

    def fire(x: str, name: str) -> str:
        squeezed = conv(x, f"{name}/squeeze1x1", 1)
        expanded = [conv(squeezed, f"{name}/expand1x1", 1), conv(squeezed, f"{name}/expand3x3", 3)]
        return graph.op("Concat", expanded, axis=1)

    x = max_pool(conv(INPUT, "conv1", 3, stride=2))
    x = max_pool(fire(fire(x, "fire2"), "fire3"))
    x = max_pool(fire(fire(x, "fire4"), "fire5"))
    for number in (6, 7, 8, 9):
        x = fire(x, f"fire{number}")
    x = conv(x, "conv10", 1, activate=False)
    x = graph.op("Flatten", [graph.op("GlobalAveragePool", [x])])
    graph.op("Softmax", [x], axis=1)
    weights.require_all_taken()
    preprocess = "bgr-[104.006,116.669,122.679]"
    graph.save(out_path, SIDE, "squeezenet1.1", preprocess, weights_path.name)
