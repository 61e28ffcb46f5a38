"""Noise onto pixels: placed at an image's own size, held to the budget, rounded to 8 bits."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image


def enlarge(noise: np.ndarray, resized: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Places noise on an image so that it reappears in the centre crop of the resized image.

    Around the square that the crop will see, the noise continues by reflection: a victim may
    crop anywhere.

    Args:
      noise: float32 `[s, s, 3]`.
      resized: height and width that the image is resized to before its centre s x s is cropped.
      size: height and width of the image itself.

    Returns:
      float32 `[*size, 3]`, interpolated bicubically.
    """
    before = [round((side - len(noise)) / 2) for side in resized]
    padding = [(b, side - len(noise) - b) for b, side in zip(before, resized, strict=True)]
    canvas = np.pad(noise, [*padding, (0, 0)], "symmetric")
    placed = np.empty((*size, 3), np.float32)
    for channel in range(3):
        plane = Image.fromarray(np.ascontiguousarray(canvas[..., channel]))
        placed[..., channel] = np.asarray(plane.resize(size[::-1], Image.Resampling.BICUBIC))
    return placed


def within_budget(noise: np.ndarray, epsilon_255: int, norm: str) -> np.ndarray:
    """Clips (linf) or scales (l2) noise `[h, w, 3]`, since interpolation overshoots."""
    eps = np.float32(epsilon_255 / 255)
    if norm == "linf":
        return noise.clip(-eps, eps)
    rms = math.sqrt(np.square(noise).mean(dtype=np.float64))
    return noise * np.float32(eps / rms) if rms > eps else noise


def add(pixels: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Returns `pixels` + `noise` as uint8 `[h, w, 3]`; noise is in pixels of [0, 1]."""
    # Rounding keeps a whole-numbered budget exactly; truncation would exceed it downwards by one.
    return np.rint(pixels + np.float32(255) * noise).clip(0, 255).astype(np.uint8)
