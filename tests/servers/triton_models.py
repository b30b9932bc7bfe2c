"""Two models for Triton: the sum of three numbers, and a text in capitals. Usage: triton_models.py PORT."""

import sys

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig


@batch
def total(x):
    """Ends with a fault of the model if a number is negative."""
    if (x < 0).any():
        raise ValueError("a number is negative")
    return [x.sum(axis=1, keepdims=True)]


@batch
def upper(text):
    """Refuses texts that begin with `bad`."""
    texts = [row[0].decode() for row in text]
    if any(text.startswith("bad") for text in texts):
        raise ValueError("a text is bad")
    return [np.array([[text.upper().encode()] for text in texts], dtype=object)]


def main():
    port = int(sys.argv[1])
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        grpc_address="127.0.0.1",
        grpc_port=port + 1,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="total",
            infer_func=total,
            inputs=[Tensor(name="x", dtype=np.float32, shape=(3,))],
            outputs=[Tensor(name="total", dtype=np.float32, shape=(1,))],
            config=ModelConfig(max_batch_size=8),
            strict=True,
        )
        triton.bind(
            model_name="upper",
            infer_func=upper,
            inputs=[Tensor(name="text", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="upper", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=16),
            strict=True,
        )
        triton.serve()


if __name__ == "__main__":
    main()
