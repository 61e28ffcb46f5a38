"""Pictures small enough to stand inside the page."""

from __future__ import annotations

import base64
import io
import math
from html import escape

import numpy as np
from PIL import Image


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


def lossless(pixels: np.ndarray, alt: str) -> str:
    """Returns uint8 `[h, w, 3]` as an inline PNG."""
    return _img(Image.fromarray(pixels), "PNG", alt, css="pixels", optimize=True)


def strip(images: np.ndarray, side: int, alt: str) -> str:
    """Returns uint8 `[e, s, s, 3]` side by side, reduced to `side`, as an inline JPEG."""
    row = Image.new("RGB", (side * len(images), side))
    for i, pixels in enumerate(images):
        row.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX), (i * side, 0))
    return _img(row, "JPEG", alt, css="strip", quality=85)


def _img(image: Image.Image, kind: str, alt: str, css: str, **options: int) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f'<img class="{css}" src="data:image/{kind.lower()};base64,{data}" alt="{escape(alt)}" '
        f'width="{image.width}" height="{image.height}">'
    )
