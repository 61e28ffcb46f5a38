"""Pictures small enough to stand inside the page."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from ucjax.errors import printable

# A larger one would be the largest thing on a page, in every picture of it.
_LARGEST_ICC = 2**14


def fitting(images: np.ndarray, pixels: int) -> int:
    """Returns the largest side at which all of `[k, s, s, 3]` stay within `pixels` together."""
    return min(images.shape[1], math.isqrt(pixels // max(len(images), 1)))


def middle(images: np.ndarray, side: int) -> np.ndarray:
    """Returns the middle `[k, side, side, 3]`: scaling down would average the noise away."""
    start = (images.shape[1] - side) // 2
    return images[:, start : start + side, start : start + side]


def extent(images: np.ndarray, side: int) -> str:
    """Says in words what `middle` shows."""
    full = images.shape[1]
    return (
        f"all {side} × {side} pixels"
        if side == full
        else f"the middle {side} × {side} of {full} × {full} pixels"
    )


def amplified(noise: np.ndarray, epsilon_255: int) -> np.ndarray:
    """Returns uint8 in which -eps to eps spans black to white; `noise` is in pixels of [0, 1]."""
    shown = 0.5 + noise * (0.5 * 255 / epsilon_255)
    return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)


def lossless(pixels: np.ndarray, alt: str, *, id: str = "", icc: bytes | None = None) -> Markup:
    """Returns uint8 `[h, w, 3]` as an inline PNG.

    Args:
      pixels: the picture.
      alt: what it shows, in words.
      id: of the element, "" for none.
      icc: a profile of its colours.
    """
    settings = {"icc_profile": icc} if icc and len(icc) <= _LARGEST_ICC else {}
    return _img(Image.fromarray(pixels), "PNG", alt, "pixels", id, optimize=True, **settings)


def strip(images: np.ndarray, side: int, alt: str) -> Markup:
    """Returns uint8 `[e, s, s, 3]` side by side, reduced to `side`, as an inline JPEG."""
    row = Image.new("RGB", (side * len(images), side))
    for i, pixels in enumerate(images):
        row.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX), (i * side, 0))
    return _img(row, "JPEG", alt, "strip", quality=85)


def photograph(pixels: np.ndarray, alt: str, *, id: str = "", icc: bytes | None = None) -> Markup:
    """Returns uint8 `[h, w, 3]` as an inline JPEG that keeps faint colours: 4:4:4, quality 92."""
    settings = {"icc_profile": icc} if icc and len(icc) <= _LARGEST_ICC else {}
    image = Image.fromarray(pixels)
    return _img(image, "JPEG", alt, "photograph", id, quality=92, subsampling="4:4:4", **settings)


def difference(clean: np.ndarray, protected: np.ndarray, gain: int = 8) -> np.ndarray:
    """Returns the change of a picture `gain` times, on grey; uint8 like both."""
    change = protected.astype(np.int32) - clean
    return np.clip(128 + gain * change, 0, 255).astype(np.uint8)


def _img(image: Image.Image, kind: str, alt: str, css: str, id: str = "", **options: Any) -> Markup:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    data = base64.b64encode(stream.getvalue()).decode()
    named = Markup(' id="{}"').format(id) if id else ""
    return Markup(
        '<img{} class="{}" src="data:image/{};base64,{}" alt="{}" width="{}" height="{}">'
    ).format(named, css, kind.lower(), data, printable(alt), image.width, image.height)
