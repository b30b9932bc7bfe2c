"""EfficientNet-Lite as an ONNX graph: BatchNorm folded into the convolutions. The graph ends with the softmax.

Source: the torch port of TensorFlow's EfficientNet-Lite (TensorFlow's SAME padding, ReLU6, no squeeze-and-excitation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .onnx_graph import INPUT, Graph, GraphInfo, TrackedWeights
from .pickled_weights import read_torch_legacy

BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class Stage:
    """A row of the architecture's table: `repeats` blocks, of which only the first uses the stride."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int


@dataclass(frozen=True)
class Variant:
    """How a family member scales the table."""

    width: float
    depth: float
    side: int
    """Of the input, in pixels."""


STAGES = (
    Stage(repeats=1, kernel=3, stride=1, expansion=1, channels_in=32, channels_out=16),
    Stage(repeats=2, kernel=3, stride=2, expansion=6, channels_in=16, channels_out=24),
    Stage(repeats=2, kernel=5, stride=2, expansion=6, channels_in=24, channels_out=40),
    Stage(repeats=3, kernel=3, stride=2, expansion=6, channels_in=40, channels_out=80),
    Stage(repeats=3, kernel=5, stride=1, expansion=6, channels_in=80, channels_out=112),
    Stage(repeats=4, kernel=5, stride=2, expansion=6, channels_in=112, channels_out=192),
    Stage(repeats=1, kernel=3, stride=1, expansion=6, channels_in=192, channels_out=320),
)
VARIANTS = {"lite0": Variant(1.0, 1.0, 224), "lite2": Variant(1.1, 1.2, 260)}


@dataclass(frozen=True)
class FeatureMap:
    """A tensor of the graph and its side in pixels."""

    name: str
    side: int


@dataclass(frozen=True)
class Conv:
    """A convolution with its BatchNorm, by the names that the weights file gives them."""

    weight: str
    norm: str
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    relu6: bool = True


@dataclass(frozen=True)
class Block:
    """One inverted residual block."""

    number: int
    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int


def round_filters(filters: int, width: float, divisor: int = 8) -> int:
    """EfficientNet's channel rounding: to a multiple of the divisor, never down by more than a tenth."""
    scaled = filters * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return int(rounded + divisor if rounded < 0.9 * scaled else rounded)


class _Builder:
    """Adds folded convolutions to a graph."""

    def __init__(self, graph: Graph, weights: TrackedWeights[np.ndarray]) -> None:
        self._graph = graph
        self._weights = weights
        self._low = graph.constant(np.float32(0), "lo")
        self._high = graph.constant(np.float32(6), "hi")

    def conv(self, x: FeatureMap, conv: Conv) -> FeatureMap:
        """A convolution with its BatchNorm folded in."""
        gamma = self._norm_part(conv, "weight")
        beta = self._norm_part(conv, "bias")
        mean = self._norm_part(conv, "running_mean")
        variance = self._norm_part(conv, "running_var")
        _ = self._weights[f"{conv.norm}.num_batches_tracked"]  # a counter of the training, without effect here
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        filters = self._weights[f"{conv.weight}.weight"].astype("f8") * scale[:, None, None, None]
        bias = beta - mean * scale
        side = math.ceil(x.side / conv.stride)
        pad = max((side - 1) * conv.stride + conv.kernel - x.side, 0)
        before = pad // 2
        after = pad - before
        y = self._graph.op(
            "Conv",
            [x.name, self._graph.constant(filters.astype("f4")), self._graph.constant(bias.astype("f4"))],
            kernel_shape=[conv.kernel, conv.kernel],
            strides=[conv.stride, conv.stride],
            group=conv.groups,
            pads=[before, before, after, after],
        )
        if conv.relu6:
            y = self._graph.op("Clip", [y, self._low, self._high])
        return FeatureMap(y, side)

    def _norm_part(self, conv: Conv, part: str) -> np.ndarray:
        return self._weights[f"{conv.norm}.{part}"].astype("f8")

    def block(self, x: FeatureMap, block: Block) -> FeatureMap:
        """Expand, depthwise, project, and a shortcut if the shapes allow it."""
        prefix = f"_blocks.{block.number}"
        y = x
        if block.expansion != 1:
            y = self.conv(y, Conv(f"{prefix}._expand_conv", f"{prefix}._bn0"))
        groups = block.channels_in * block.expansion
        depthwise = Conv(f"{prefix}._depthwise_conv", f"{prefix}._bn1", block.kernel, block.stride, groups)
        y = self.conv(y, depthwise)
        y = self.conv(y, Conv(f"{prefix}._project_conv", f"{prefix}._bn2", relu6=False))
        if block.stride == 1 and block.channels_in == block.channels_out:
            return FeatureMap(self._graph.op("Add", [y.name, x.name]), y.side)
        return y


def _blocks(variant: Variant) -> list[Block]:
    """The table, scaled. The Lite family keeps the stem and the first and last stages at their base size."""
    blocks: list[Block] = []
    for index, stage in enumerate(STAGES):
        channels_in = 32 if index == 0 else round_filters(stage.channels_in, variant.width)
        channels_out = round_filters(stage.channels_out, variant.width)
        is_edge = index in (0, len(STAGES) - 1)
        repeats = stage.repeats if is_edge else math.ceil(variant.depth * stage.repeats)
        for repeat in range(repeats):
            channels = channels_in if repeat == 0 else channels_out
            stride = stage.stride if repeat == 0 else 1
            blocks.append(Block(len(blocks), stage.kernel, stride, stage.expansion, channels, channels_out))
    return blocks


def convert(weights_path: Path, variant_name: str, out_path: Path) -> None:
    """Writes `out_path` from a torch state dict. Raises ConversionError for a file that does not fit the variant."""
    variant = VARIANTS[variant_name]
    weights = TrackedWeights(read_torch_legacy(weights_path), weights_path)
    graph = Graph()
    builder = _Builder(graph, weights)
    x = builder.conv(FeatureMap(INPUT, variant.side), Conv("_conv_stem", "_bn0", kernel=3, stride=2))
    for block in _blocks(variant):
        x = builder.block(x, block)
    x = builder.conv(x, Conv("_conv_head", "_bn1"))
    features = graph.op("Flatten", [graph.op("GlobalAveragePool", [x.name])])
    classifier = [graph.constant(weights["_fc.weight"]), graph.constant(weights["_fc.bias"])]
    logits = graph.op("Gemm", [features, *classifier], transB=1)
    graph.op("Softmax", [logits], axis=1)
    weights.require_all_used()
    graph.save(out_path, GraphInfo(f"efficientnet-{variant_name}", variant.side, "(rgb-127)/128", weights_path.name))
