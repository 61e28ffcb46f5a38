"""The controls' noise: random signs at full budget, made from nothing but a seed and a number.

A sign fills a cell of `grain` pixels a side, so that learnt noise is compared with its like.
`per_image` is the null, which should cost a victim little. `per_cluster` is what fixed patterns
protect by themselves, and what learnt noise has to beat.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ucjax.protections.contract import Given
from ucjax.protections.noise import Noise, Nothing, Pixels

_IMAGE_STREAM, _CLUSTER_STREAM = 0, 1


def clean(given: Given) -> Noise:
    """Gives no noise."""
    return Noise(Nothing(), np.zeros(len(given.images), np.int32), epsilon_255=0)


def per_image(given: Given) -> Noise:
    """Gives each image its own random signs."""
    spec, crop, n = given.config.noise, given.config.data.crop, len(given.images)

    def signs(index: int) -> np.ndarray:
        return image_signs(given.seed, index, crop, spec.epsilon_255, grain=spec.grain)

    patterns = Pixels(signs, crop, given.config.data.short_side, spec.epsilon_255)
    return Noise(patterns, np.arange(n, dtype=np.int32), spec.epsilon_255)


def per_cluster(given: Given) -> Noise:
    """Gives each cluster its own random signs."""
    spec, crop, clusters = given.config.noise, given.config.data.crop, given.clusters()

    @cache
    def signs() -> np.ndarray:
        count = len(clusters.centers)
        return cluster_signs(given.seed, count, crop, spec.epsilon_255, grain=spec.grain)

    patterns = Pixels(
        lambda row: signs()[row], crop, given.config.data.short_side, spec.epsilon_255
    )
    rows = clusters.assignment
    return Noise(patterns, rows, spec.epsilon_255, clusters=rows)


def image_signs(
    seed: int, index: int, size: int, epsilon_255: int, *, grain: int = 1
) -> np.ndarray:
    """Returns the noise of image `index`, float32 `[size, size, 3]` of ±epsilon_255/255."""
    return _signs(seed, _IMAGE_STREAM, index, size, epsilon_255, grain)


def cluster_signs(
    seed: int, clusters: int, size: int, epsilon_255: int, *, grain: int = 1
) -> np.ndarray:
    """Returns a noise a cluster, float32 `[clusters, size, size, 3]` of ±epsilon_255/255."""
    return np.stack(
        [
            _signs(seed, _CLUSTER_STREAM, index, size, epsilon_255, grain)
            for index in range(clusters)
        ]
    )


def _signs(
    seed: int, stream: int, index: int, size: int, epsilon_255: int, grain: int
) -> np.ndarray:
    # Keyed, not drawn in turn: the same for any order of calls, and for any number of images.
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, index))
    cells = -(-size // grain)
    drawn = np.random.Generator(np.random.Philox(sequence)).bytes(-(-(cells * cells * 3) // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8), count=cells * cells * 3)
    levels = (np.array([-epsilon_255, epsilon_255]) / 255).astype(np.float32)
    signs = levels[bits].reshape(cells, cells, 3)
    return signs.repeat(grain, 0).repeat(grain, 1)[:size, :size]
