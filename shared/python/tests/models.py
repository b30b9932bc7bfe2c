"""Models that the tests ship to the cluster: see idunno.model."""

from __future__ import annotations

import re
import time
from typing import Any

import idunno
import shipped_helper

WORD = r"[a-z]+"
LIMIT = 200


def words_of(text: str) -> list[str]:
    """Used by a model of this module, so it is shipped with it."""
    return re.findall(WORD, text.lower())[:LIMIT]


@idunno.model(canary=b"{}", batch_max=64)
def echo(value: dict[str, Any]) -> Any:
    """Answers what it is asked."""
    return value


@idunno.model
def hexadecimal(content: bytes) -> str:
    """Shows every byte."""
    return content.hex()


@idunno.model(name="word-counter")
class WordCounter:
    """Has a state, made once on each member."""

    def __init__(self) -> None:
        self.offset = shipped_helper.OFFSET

    def __call__(self, text: str) -> int:
        return len(words_of(text)) + self.offset


@idunno.model(batch=True, batch_max=16, network=True)
def lengths(texts: list[str]) -> list[int]:
    """Answers whole batches."""
    return [len(text) for text in texts]


@idunno.model(batch_max=4)
def slow(text: str) -> str:
    """Takes a while for each row."""
    time.sleep(0.05)
    return text


@idunno.model
def even(number: int) -> int:
    """Fails for every other number."""
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


@idunno.model(name="with-requirement", requirements=["roman-numerals==4.1.0"])
def roman(number: int) -> str:
    """Needs a library that is installed for it alone."""
    from roman_numerals import RomanNumeral

    return str(RomanNumeral(number))
