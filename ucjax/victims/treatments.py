"""What an exploiter may do to every picture, at its own size, to be rid of the noise.

JPEG, grey and fewer bits are "image shortcut squeezing" (arXiv:2301.13838), which uses JPEG 10 and
2 bits; JPEG 75 is what happens to pictures on the web anyway.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from ucjax.data import decode
from ucjax.victims.contract import Change


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


def median(side: int | None) -> Change:
    """Replaces each channel of a pixel by the median of a square around it."""
    assert side is not None
    return lambda picture: picture.filter(ImageFilter.MedianFilter(side))


def blur(sigma: int | None) -> Change:
    """Smoothes with a Gaussian of this many pixels' standard deviation."""
    assert sigma is not None
    return lambda picture: _gaussian(picture, sigma)


def _gaussian(picture: Image.Image, sigma: int) -> Image.Image:
    # Pillow's own GaussianBlur is three box blurs, which let some fine gratings through.
    pixels, radius = np.asarray(picture, np.float32), 3 * sigma
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        around = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
        padded, length = np.pad(pixels, around, mode="symmetric"), pixels.shape[axis]
        parts = [
            np.float32(weight) * np.take(padded, range(i, i + length), axis)
            for i, weight in enumerate(weights)
        ]
        pixels = sum(parts[1:], parts[0])
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def resize(short_side: int | None) -> Change:
    """Resizes to this short side, bilinear with antialiasing, and back; smaller ones stay."""
    assert short_side is not None

    def change(picture: Image.Image) -> Image.Image:
        if min(picture.size) <= short_side:
            return picture
        small = decode.resize(picture, short_side)
        return small.resize(picture.size, Image.Resampling.BILINEAR)

    return change
