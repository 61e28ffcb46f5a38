"""What an exploiter may do to every picture, at its own size, to be rid of the noise.

JPEG, grey and fewer bits are "image shortcut squeezing" (arXiv:2301.13838), which uses JPEG 10 and
2 bits; JPEG 75 is what happens to pictures on the web anyway.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, ImageOps

Change = Callable[[Image.Image], Image.Image]


def jpeg(quality: int | None) -> Change:
    """Encodes as JPEG of this quality, with Pillow's defaults (4:2:0), and decodes again."""

    def change(picture: Image.Image) -> Image.Image:
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=quality)
        return Image.open(encoded).convert("RGB")

    return change


def grey(number: int | None) -> Change:
    """Replaces the colour by ITU-R 601 luma in all three channels."""
    del number
    return lambda picture: picture.convert("L").convert("RGB")


def bits(kept: int | None) -> Change:
    """Clears all but the top bits of every channel."""
    assert kept is not None
    return lambda picture: ImageOps.posterize(picture, kept)


def lowpass(factor: int | None) -> Change:
    """Reduces both sides by a factor, to one pixel at least, and enlarges them again, bilinear.

    Pillow averages over all pixels where it reduces (antialiasing), as torchvision's Resize does.
    """
    assert factor is not None

    def change(picture: Image.Image) -> Image.Image:
        width, height = (max(round(side / factor), 1) for side in picture.size)
        small = picture.resize((width, height), Image.Resampling.BILINEAR)
        return small.resize(picture.size, Image.Resampling.BILINEAR)

    return change
