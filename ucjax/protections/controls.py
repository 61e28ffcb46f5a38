"""The controls' noise: random signs at full budget, made from nothing but a seed and a number.

A sign fills a cell of `grain` pixels a side, so that learnt noise is compared with its like.
`per_image` is the null, which should cost a victim little. `per_cluster` is what fixed patterns
protect by themselves, and what learnt noise has to beat.
"""

from __future__ import annotations

import numpy as np

_IMAGE_STREAM, _CLUSTER_STREAM = 0, 1


def per_image(seed: int, index: int, size: int, epsilon_255: int, *, grain: int = 1) -> np.ndarray:
    """Returns the noise of image `index`, float32 `[size, size, 3]` of ±epsilon_255/255."""
    return _signs(seed, _IMAGE_STREAM, index, size, epsilon_255, grain)


def per_cluster(
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
