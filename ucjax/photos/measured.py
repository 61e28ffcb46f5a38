"""What was measured on photographs, in words: the one place that pages and commands quote.

Every number is one of docs/results.md, and a test holds them to that page.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from ucjax import names

STATE = (
    "On photographs, waves at full strength took much from a small network and some from larger "
    "ones, the paper's noise nothing: whether training on yours suffers is to be measured."
)
_BESIDE = (
    "those of clean files 61.7 ± 1.5 % (2,000 clothing photographs of 256 px, ResNet-18 at 128 px, "
    "12 epochs, 3 seeds)"
)
_BY_BUDGET = {
    ("gratings", 16): (
        f"Measured at this budget: victims of the files reach 59.8 ± 3.4 %, {_BESIDE}: within the "
        "spread."
    ),
    ("gratings:color=all", 16): (
        "Measured at this budget, with clusters found at 224 px: victims of the files reach 53.1 "
        "± 3.3 %, those of clean files 69.9 ± 0.9 % (2,000 clothing photographs of 256 px, "
        "ResNet-18 at 64 px, 30 epochs, 3 seeds): 17 points less. With clusters found at 128 px, a "
        "small VGG 23.1 ± 1.4 %, of clean files 50.4 ± 3.5 %."
    ),
    ("gratings:wave=sine", 16): (
        f"Measured at this budget: victims of the files reach 62.5 ± 4.3 %, {_BESIDE}: nothing "
        "gained."
    ),
    ("gratings:wave=sine", 8): (
        f"Measured at this budget: victims of the files reach 62.3 ± 2.4 %, {_BESIDE}: nothing "
        "gained."
    ),
    ("uc", 16): (
        f"Measured at this budget, after training: victims of the files reach 63.8 ± 0.3 %, "
        f"{_BESIDE}: nothing gained."
    ),
}
_NOTHING = "Not measured on photographs at this budget."


class Attack(NamedTuple):
    """What somebody can do about a protection, and what is known of that."""

    what: str
    known: str


_ATTACKS = (
    Attack(
        "Subtract the noise",
        "All files of a cluster carry one noise. Whoever has one photograph both clean and "
        "protected can take it off the others: publish no original, and nothing of OUT but images. "
        "Copies that are online already cannot be called back.",
    ),
    Attack(
        "Take a pretrained network",
        "The noise is made against training from scratch. Of 2,000 photographs with the default's "
        "waves a linear layer on a pretrained network's features learnt 65.8 ± 1.0 %, of clean "
        "ones 77.8 ± 1.1 %. Fine-tuning was not measured on photographs.",
    ),
    Attack(
        "Train longer, or against the noise",
        "Adversarial training, other networks and augmentations, and attacks that know this "
        "protection: not measured on photographs.",
    ),
)
_BY_KIND = {
    "gratings": (
        Attack(
            "Compress the files",
            "In 36 photographs of 256 px, JPEG at quality 80 (4:2:0) left 62, 74 and 99 % of the "
            "default's waves (fine, middle, coarse), JPEG at 95 (4:4:4) 99 %. On textures of "
            "64 px, where waves are a few pixels long, training on files of quality 75 gave "
            "victims 51.9 ± 10.8 %, on the copies as they were 14.9 ± 1.7 %, on clean files "
            "73.7 ± 12.9 %.",
        ),
        Attack(
            "Look for the waves",
            "Who knows of them can cluster the files and subtract the mean picture of each "
            "cluster: on textures that gave all of the accuracy back (81.9 ± 2.8 %). It stops who "
            "trains on what they find, not who studies it.",
        ),
        Attack(
            "Take the colour away",
            "Waves of colour alone have no luminance: in grey pictures they are gone.",
        ),
    ),
    "pixels": (
        Attack(
            "Resize and compress the files",
            "Noise of single pixels is blurred by resizing and by JPEG; what is left of it was not "
            "measured on photographs.",
        ),
    ),
}


def said(row: str, epsilon_255: int) -> str:
    """Returns what victims showed of a row of the table ("gratings:wave=sine"), in a sentence.

    Args:
      row: with or without its budget.
      epsilon_255: the budget.
    """
    if not row:
        return _NOTHING
    name = names.parse(row, "row")
    others = tuple((key, value) for key, value in name.keys if key != "eps")
    return _BY_BUDGET.get((str(replace(name, keys=others)), epsilon_255), _NOTHING)


def attacks(kind: str) -> tuple[Attack, ...]:
    """Returns what an attacker can do about noise of a kind (`Protector.kind`)."""
    return (*_BY_KIND.get(kind, ()), *_ATTACKS)
