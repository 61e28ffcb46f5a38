"""The controls' noise: random signs at full budget, made from nothing but a seed and a number.

`per_image` is the null, which should cost a victim little. `per_cluster` is what fixed patterns
protect by themselves, and what learnt noise has to beat.
"""

from __future__ import annotations

import numpy as np

_IMAGE_STREAM, _CLUSTER_STREAM = 0, 1


def per_image(seed: int, index: int, size: int, epsilon_255: int) -> np.ndarray:
    """Returns the noise of image `index`, float32 `[size, size, 3]` of ±epsilon_255/255."""
    return _signs(seed, _IMAGE_STREAM, index, size, epsilon_255)


def per_cluster(seed: int, clusters: int, size: int, epsilon_255: int) -> np.ndarray:
    """Returns a noise a cluster, float32 `[clusters, size, size, 3]` of ±epsilon_255/255."""
    return np.stack(
        [_signs(seed, _CLUSTER_STREAM, index, size, epsilon_255) for index in range(clusters)]
    )


def _signs(seed: int, stream: int, index: int, size: int, epsilon_255: int) -> np.ndarray:
    # Keyed, not drawn in turn: the same for any order of calls, and for any number of images.
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, index))
    drawn = np.random.Generator(np.random.Philox(sequence)).bytes(-(-(size * size * 3) // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8), count=size * size * 3)
    levels = np.array([-epsilon_255, epsilon_255]) / 255
    return levels.astype(np.float32)[bits].reshape(size, size, 3)
