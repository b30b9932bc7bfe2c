"""EfficientNet-Lite as an ONNX graph: BatchNorm folded into the convolutions, softmax inside.

Source: the torch port of TensorFlow's EfficientNet-Lite (padding as TensorFlow's SAME, ReLU6, no squeeze-excite).
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from .graph import INPUT, Graph, TakenWeights
from .weights import read_torch_legacy

# Repeats, kernel, stride, expansion, channels in, channels out.
BLOCKS = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
# Variant -> width multiplier, depth multiplier, input side in pixels.
VARIANTS = {"lite0": (1.0, 1.0, 224), "lite2": (1.1, 1.2, 260)}
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def round_filters(filters: int, width: float, divisor: int = 8) -> int:
    """EfficientNet's channel rounding: to a multiple of the divisor, never down by more than a tenth."""
    scaled = filters * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return int(rounded + divisor if rounded < 0.9 * scaled else rounded)


class _Builder:
    """Adds folded convolutions to a graph."""

    def __init__(self, weights: TakenWeights) -> None:
        self.graph = Graph()
        self.weights = weights
        self._low = self.graph.constant(np.float32(0), "lo")
        self._high = self.graph.constant(np.float32(6), "hi")

    def conv(
        self,
        x: str,
        conv_name: str,
        norm_name: str,
        kernel: int,
        stride: int,
        side: int,
        groups: int = 1,
        activate: bool = True,
    ) -> tuple[str, int]:
        """Convolution with its BatchNorm folded in. Returns the output's name and its side in pixels."""
        gamma, beta, mean, variance = (self.weights[f"{norm_name}.{part}"].astype("f8") for part in BATCH_NORM_PARTS)
        _ = self.weights[f"{norm_name}.num_batches_tracked"]  # a counter of the training, without effect here
        scale = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
        filters = self.weights[f"{conv_name}.weight"].astype("f8") * scale[:, None, None, None]
        bias = beta - mean * scale
        side_out = math.ceil(side / stride)
        pad = max((side_out - 1) * stride + kernel - side, 0)
        y = self.graph.op(
            "Conv",
            [x, self.graph.constant(filters.astype("f4")), self.graph.constant(bias.astype("f4"))],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            group=groups,
            pads=[pad // 2, pad // 2, pad - pad // 2, pad - pad // 2],
        )
        if activate:
            y = self.graph.op("Clip", [y, self._low, self._high])  # ReLU6
        return y, side_out

    def block(
        self, x: str, number: int, kernel: int, stride: int, expansion: int, channels: int, channels_out: int,
        side: int,
    ) -> tuple[str, int]:  # fmt: skip
        """One inverted residual block: expand, depthwise, project, and the shortcut where the shapes allow it."""
        prefix = f"_blocks.{number}"
        y = x
        if expansion != 1:
            y, _ = self.conv(y, f"{prefix}._expand_conv", f"{prefix}._bn0", 1, 1, side)
        groups = channels * expansion
        y, side_out = self.conv(y, f"{prefix}._depthwise_conv", f"{prefix}._bn1", kernel, stride, side, groups=groups)
        y, _ = self.conv(y, f"{prefix}._project_conv", f"{prefix}._bn2", 1, 1, side_out, activate=False)
        if stride == 1 and channels == channels_out:
            y = self.graph.op("Add", [y, x])
        return y, side_out


def convert(weights_path: Path, variant: str, out_path: Path) -> None:
    """Writes `out_path` from a torch state dict. Raises ValueError for a file that does not fit the variant."""
    width, depth, size = VARIANTS[variant]
    weights = TakenWeights(read_torch_legacy(weights_path), weights_path)
    builder = _Builder(weights)
    graph = builder.graph
    x, side = builder.conv(INPUT, "_conv_stem", "_bn0", 3, 2, size)
    number = 0
    for stage, (repeats, kernel, stride, expansion, channels_in, channels_out) in enumerate(BLOCKS):
        # The "lite" family keeps the stem, the first and the last stage at their base size.
        channels_in = 32 if stage == 0 else round_filters(channels_in, width)
        channels_out = round_filters(channels_out, width)
        if stage not in (0, len(BLOCKS) - 1):
            repeats = math.ceil(depth * repeats)
        for repeat in range(repeats):
            channels, step = (channels_in, stride) if repeat == 0 else (channels_out, 1)
            x, side = builder.block(x, number, kernel, step, expansion, channels, channels_out, side)
            number += 1
    x, _ = builder.conv(x, "_conv_head", "_bn1", 1, 1, side)
    x = graph.op("Flatten", [graph.op("GlobalAveragePool", [x])])
    head = [graph.constant(weights["_fc.weight"]), graph.constant(weights["_fc.bias"])]
    x = graph.op("Gemm", [x, *head], transB=1)
    graph.op("Softmax", [x], axis=1)
    weights.require_all_taken()
    graph.save(out_path, size, f"efficientnet-{variant}", "(rgb-127)/128", weights_path.name)
