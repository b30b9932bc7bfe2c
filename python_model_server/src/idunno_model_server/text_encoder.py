"""Texts to vectors: a tokenizer, an ONNX network, pooling over the tokens, and scaling to length 1.

Texts of the same number of tokens run together, and nothing is padded: no work is done for padding, and a text's vector
does not depend on the texts beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .errors import ModelLoadError, RowError
from .parameters import Parameter

if TYPE_CHECKING:
    import numpy as np

Pooling = Literal["mean", "cls", "max"]
DIGITS = 6
"""Decimal digits of a vector's numbers: the last ones depend on the processor."""
TOKENS_AT_ONCE_MAX = 4096
"""A bound on the memory for one call of the network, unless one text has more tokens."""
TOKENIZER_PROPERTY = "tokenizer"
"""Where an ONNX file's metadata may have the text of tokenizer.json."""
TRUNCATE = Parameter(True, "whether a text that is too long is cut; if not, its row fails")


@dataclass(frozen=True)
class EncoderSettings:
    tokens_max: int
    """A longer text is cut, or refused."""
    pooling: Pooling
    normalise: bool
    """Whether a vector is scaled to length 1."""


class TextEncoder:
    """Threads may share it."""

    def __init__(
        self, network: bytes | str, settings: EncoderSettings, tokenizer: str | None = None, device: str = "cpu"
    ) -> None:
        """`network` is the path of an ONNX file, or its content; `tokenizer` is the text of tokenizer.json, by default
        what the network's metadata have. Raises ModelLoadError.
        """
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        provider = "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider"
        self._session = onnxruntime.InferenceSession(network, options, providers=[provider])
        self._inputs = [value.name for value in self._session.get_inputs()]
        unknown = set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        output = self._session.get_outputs()[0]
        if unknown or len(output.shape) != 3:
            raise ModelLoadError(
                f"the network takes {', '.join(self._inputs)} and its first output {output.name!r} has the shape "
                f"{output.shape}: it is no text encoder"
            )
        self._output = output.name
        self._settings = settings
        if tokenizer is None:
            tokenizer = self._session.get_modelmeta().custom_metadata_map[TOKENIZER_PROPERTY]
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(settings.tokens_max)

    def tokens(self, content: bytes | memoryview, truncate: bool) -> list[int]:
        """Raises RowError for what is no text, and for a text that is too long unless it is to be cut."""
        try:
            text = str(content, "utf-8")
        except UnicodeDecodeError as error:
            raise RowError(f"not UTF-8 text: byte {error.start}") from None
        if not text.strip():
            raise RowError("the text is empty")
        encoding = self._tokenizer.encode(text)
        if encoding.overflowing and not truncate:
            raise RowError(f"the text has more than {self._settings.tokens_max} tokens")
        ids: list[int] = encoding.ids
        return ids

    def vectors(self, texts: Sequence[list[int]]) -> list[np.ndarray]:
        """float64 [width] for each text."""
        import numpy as np

        found: list[Any] = [None] * len(texts)
        for indices in _together(texts):
            rows = self._pooled(np.array([texts[index] for index in indices], "i8"))
            for index, row in zip(indices, rows, strict=True):
                found[index] = row
        return found

    def _pooled(self, ids: np.ndarray) -> np.ndarray:
        import numpy as np

        values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (states,) = self._session.run([self._output], {name: values[name] for name in self._inputs})
        pool = {"mean": lambda: states.mean(axis=1, dtype="f8"), "cls": lambda: states[:, 0].astype("f8")}
        vectors = pool.get(self._settings.pooling, lambda: states.max(axis=1).astype("f8"))()
        if self._settings.normalise:
            vectors /= np.maximum(np.sqrt((vectors * vectors).sum(axis=1, keepdims=True)), 1e-12)
        return np.asarray(vectors.round(DIGITS))


def _together(texts: Sequence[list[int]]) -> Iterator[list[int]]:
    """The places of texts that run at once: of one length, and not too many."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for index, tokens in enumerate(texts):
        by_length[len(tokens)].append(index)
    for length, indices in by_length.items():
        size = max(1, TOKENS_AT_ONCE_MAX // max(1, length))
        yield from (indices[start : start + size] for start in range(0, len(indices), size))
