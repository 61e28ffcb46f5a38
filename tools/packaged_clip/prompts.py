"""Captions: every synonym of a class in every template, as words of a vocabulary of their own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

TEMPLATES = (
    "{}",
    "a photo of a {}",
    "a photo of the {}",
    "a picture of a {}",
    "an image of one {}",
    "a small photo of a {}",
    "a blurry photo of a {}",
    "a close photo of a {}",
)


class Prompts(NamedTuple):
    """The captions of all classes: class after class, synonym after synonym, in `TEMPLATES`' order.

    Token 0 pads, 1 to `end - 1` are words, and `end`, the largest, closes a caption.
    """

    ids: np.ndarray  # int32 [n, length]
    starts: np.ndarray  # int32 [classes + 1]: class c has the captions starts[c]:starts[c + 1]
    end: int


def make(names: Sequence[Sequence[str]]) -> Prompts:
    """Returns the captions of classes with the given synonyms, at least one a class."""
    captions = [
        [_words(template.format(name)) for name in synonyms for template in TEMPLATES]
        for synonyms in names
    ]
    flat = [words for group in captions for words in group]
    vocabulary = sorted({word for words in flat for word in words})
    number = {word: i for i, word in enumerate(vocabulary, start=1)}
    end = len(vocabulary) + 1
    ids = np.zeros((len(flat), 1 + max(map(len, flat))), np.int32)
    for row, words in zip(ids, flat, strict=True):
        row[: len(words) + 1] = [*(number[word] for word in words), end]
    starts = np.cumsum([0, *map(len, captions)], dtype=np.int32)
    return Prompts(ids, starts, end)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
