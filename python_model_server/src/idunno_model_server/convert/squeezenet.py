"""SqueezeNet 1.1 as an ONNX graph, from a numpy pickle. The graph ends with the softmax."""

from __future__ import annotations

from pathlib import Path

from .onnx_graph import INPUT, Graph, GraphInfo, TrackedWeights
from .pickled_weights import Layer, read_layers

SIDE = 227


class _Builder:
    """Adds SqueezeNet's layers to a graph. Each method takes and returns the name of a tensor."""

    def __init__(self, graph: Graph, layers: TrackedWeights[Layer]) -> None:
        self._graph = graph
        self._layers = layers

    def conv(self, x: str, name: str, kernel: int, stride: int = 1) -> str:
        layer = self._layers[name]
        filters = layer.filters.transpose(3, 2, 0, 1).astype("f4")  # from height, width, in, out
        return self._graph.op(
            "Conv",
            [x, self._graph.constant(filters), self._graph.constant(layer.bias.astype("f4"))],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            auto_pad="SAME_UPPER",
        )

    def conv_relu(self, x: str, name: str, kernel: int, stride: int = 1) -> str:
        return self._graph.op("Relu", [self.conv(x, name, kernel, stride)])

    def max_pool(self, x: str) -> str:
        return self._graph.op("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2])

    def fire(self, x: str, name: str) -> str:
        squeezed = self.conv_relu(x, f"{name}/squeeze1x1", 1)
        expanded_1x1 = self.conv_relu(squeezed, f"{name}/expand1x1", 1)
        expanded_3x3 = self.conv_relu(squeezed, f"{name}/expand3x3", 3)
        return self._graph.op("Concat", [expanded_1x1, expanded_3x3], axis=1)


def convert(weights_path: Path, out_path: Path) -> None:
    """Writes `out_path`. Raises ConversionError for a file with layers that SqueezeNet 1.1 does not have."""
    layers = TrackedWeights(read_layers(weights_path), weights_path)
    graph = Graph()
    builder = _Builder(graph, layers)
    x = builder.max_pool(builder.conv_relu(INPUT, "conv1", 3, stride=2))
    x = builder.max_pool(builder.fire(builder.fire(x, "fire2"), "fire3"))
    x = builder.max_pool(builder.fire(builder.fire(x, "fire4"), "fire5"))
    for number in (6, 7, 8, 9):
        x = builder.fire(x, f"fire{number}")
    x = builder.conv(x, "conv10", 1)
    x = graph.op("Flatten", [graph.op("GlobalAveragePool", [x])])
    graph.op("Softmax", [x], axis=1)
    layers.require_all_used()
    preprocess = "bgr-[104.006,116.669,122.679]"
    graph.save(out_path, GraphInfo("squeezenet1.1", SIDE, preprocess, weights_path.name))
