"""The row `lsp` (SynPer): patches of a class's own Gaussian, linearly separable, no network.

Availability Attacks Create Shortcuts (Yu et al., arXiv:2111.00898).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from ucjax.errors import UserError
from ucjax.protections import labels
from ucjax.protections.contract import Given
from ucjax.protections.noise import Noise, Pixels

OPTIONS = {
    **labels.OPTION,
    "rms": 6.0,  # root mean square of a noise in pixel levels: the paper's; 10 fills a budget of 16
    "patch": 0,  # pixels a side; 0: 32 for crops from 128 pixels on, else 8
}
_SEPARATION = 10.0
_STREAM = 3  # others draw from 0 to 2
_CENTERS, _SPREAD, _IMAGE = 0, 1, 2


def fit(given: Given) -> Noise:
    """Draws each image's noise from its class's Gaussian, clipped to the budget.

    Raises:
      UserError: impossible settings.
    """
    options, data = given.options, given.config.data
    if options["rms"] <= 0:
        raise UserError(f"rms of row lsp is {options['rms']:g}: give pixel levels above 0")
    given_labels, classes = labels.labels_of(given)
    cells = data.crop // patch_side(data.crop, options["patch"])
    sample = sampler(given.seed, classes, cells)
    limit = given.config.noise.epsilon_255 / 255

    def of(row: int) -> np.ndarray:
        noise = sample(int(given_labels[row]), row)
        noise = noise * (options["rms"] / 255 / np.sqrt(np.square(noise).mean()))
        side = data.crop // cells
        return noise.clip(-limit, limit).astype(np.float32).repeat(side, 0).repeat(side, 1)

    epsilon_255 = given.config.noise.epsilon_255
    patterns = Pixels(of, data.crop, data.short_side, epsilon_255)
    return Noise(patterns, np.arange(len(given_labels), dtype=np.int32), epsilon_255)


def patch_side(crop: int, patch: int) -> int:
    """Returns the side of a patch in pixels, 0 meaning that of the published benchmarks.

    Raises:
      UserError: it does not divide the crop.
    """
    side = patch or (32 if crop >= 128 else 8)
    if side < 1 or crop % side:
        raise UserError(f"patch of row lsp is {side}, which does not divide the crop of {crop} px")
    return side


def sampler(seed: int, classes: int, cells: int) -> Callable[[int, int], np.ndarray]:
    """Returns `sample(class, number) -> float64 [cells, cells, 3]`, before any scaling.

    A class has its vertex of a hypercube for a centre and its own random shape, as
    scikit-learn's `make_classification` has it; the same number gives the same sample.

    Raises:
      UserError: more classes than vertices.
    """
    d = 3 * cells * cells
    if classes > 2 ** min(d, 60):
        raise UserError(
            f"row lsp has {cells}x{cells} patches an image, for at most {2**d} classes, not "
            f"{classes}: use a smaller patch"
        )
    centers = _SEPARATION * _vertices(_generator(seed, _CENTERS), classes, d)

    @cache
    def spread(label: int) -> np.ndarray:
        return _generator(seed, _SPREAD, label).uniform(-1, 1, (d, d)).astype(np.float32)

    def sample(label: int, number: int) -> np.ndarray:
        drawn = _generator(seed, _IMAGE, number).standard_normal(d)
        return (drawn @ spread(label) + centers[label]).reshape(cells, cells, 3)

    return sample


def _vertices(rng: np.random.Generator, count: int, d: int) -> np.ndarray:
    """Returns different vectors of ±1, `[count, d]`."""
    found: dict[bytes, np.ndarray] = {}
    while len(found) < count:
        bits = rng.integers(0, 2, d, np.int8)
        found.setdefault(bits.tobytes(), bits)
    return 2.0 * np.stack(list(found.values())) - 1


def _generator(seed: int, *key: int) -> np.random.Generator:
    sequence = np.random.SeedSequence(seed, spawn_key=(_STREAM, *key))
    return np.random.Generator(np.random.Philox(sequence))
