"""Adds a protection of one's own to the table: a stripe of its own colour for every cluster.

    ucjax compare PHOTOS --module examples.own_protection --protections clean cluster_random stripes

Importing this file adds the row, here and as `config.modules=("examples.own_protection",)`.
"""

from __future__ import annotations

import numpy as np

from ucjax.protections.contract import Given, Protection
from ucjax.protections.noise import Noise, Pixels
from ucjax.protections.table import PROTECTIONS


def stripes(given: Given) -> Noise:
    """Returns vertical stripes of ±eps, `period` pixels wide, in the cluster's own colour."""
    config, clusters = given.config, given.clusters()
    eps, crop, period = config.noise.epsilon_255, config.data.crop, given.options["period"]
    wave = np.where(np.arange(crop) // period % 2, 1.0, -1.0)
    colors = np.random.default_rng(given.seed).choice([-1.0, 1.0], (len(clusters.centers), 3))
    noise = np.broadcast_to(wave[None, :, None], (crop, crop, 3)) * colors[:, None, None, :]
    patterns = Pixels(
        (noise * eps / 255).astype(np.float32).__getitem__, crop, config.data.short_side, eps
    )
    return Noise(patterns, clusters.assignment, eps, clusters=clusters.assignment)


PROTECTIONS["stripes"] = Protection(
    "vertical stripes in a colour per cluster (examples/own_protection.py)",
    stripes,
    ("k", "eps"),
    {"period": 4},
)
