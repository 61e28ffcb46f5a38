"""The row `gratings`: one plane wave a cluster, drawn from a secret seed, without any training.

A victim takes up a cue that is far easier to see than content. A plane wave puts the whole budget
into one Fourier component, where photographs have little power; of colour alone, it is hardly to
be seen by people.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ucjax import names
from ucjax.errors import UserError
from ucjax.protections.contract import Given
from ucjax.protections.noise import Noise
from ucjax.protections.waves import ANGLE, COLOR, PERIOD, WAVES, Gratings

OPTIONS = {
    # Periods as shares of the short side, given to carriers in turn. They are what victims of 64 px
    # still see, and so those of every larger size: of 1/40 they see less than two pixels.
    "bands": "1/24,1/16,1/10",
    "color": "chroma",  # "chroma": no luminance | "luma": no colour | "all"
    "wave": "square",  # "square" | "sine"
    "labels": "clusters",  # "clusters" | "folders": the owner's own, as clusters
}
# What an owner may ask for by name. What each does to photographs: docs/photos.md.
STRENGTHS = {
    "subtle": "gratings:eps=8:wave=sine",
    "balanced": "gratings:eps=16:wave=sine",
    "strong": "gratings:color=all:eps=16",
}
_CHOICES = {
    "color": ("chroma", "luma", "all"),
    "wave": WAVES,
    "labels": ("clusters", "folders"),
}
LUMINANCE = np.array([0.299, 0.587, 0.114])  # Rec. 601, as JPEG has it
# A carrier is told apart from its neighbours in these by most: signs of all channels, of two.
_SIGNS = np.array(
    [[1, 1, 1], [1, 1, -1], [1, -1, 1], [-1, 1, 1], [1, -1, 0], [1, 0, -1], [0, 1, -1]], float
)
_STREAM = 2  # controls draw from 0 and 1
_JITTER = 0.08  # of the periods, so that they are not known from the row's name
# Steps of sequences that never come near themselves: the golden ratio and the plastic number.
_GOLDEN, _PLASTIC = 0.6180339887498949, 0.7548776662466927


def fit(given: Given) -> Noise:
    """Draws a carrier a cluster.

    Raises:
      UserError: a setting of the row is none of its choices, or there are no folders' names.
    """
    options, epsilon_255 = given.options, check(given.config, given.options)
    rows, centers = _clusters(given)
    p = int(rows.max()) + 1
    carriers = draw(given.seed, p, options["bands"], options["color"])
    if centers is not None and p > 1:
        carriers = carriers[_far_apart(centers, distances(carriers))]
    gratings = Gratings(carriers, epsilon_255, given.config.data.short_side, options["wave"])
    return Noise(gratings, rows, epsilon_255, clusters=rows)


def check(config: ConfigDict, options: Mapping[str, Any]) -> int:
    """Returns the budget of a row's settings.

    Raises:
      UserError: it is out of range, or a setting of the row is none of its choices.
    """
    for key, choices in _CHOICES.items():
        names.known(options[key], choices, f"{key} of row gratings")
    epsilon_255 = config.noise.epsilon_255
    if not 1 <= epsilon_255 <= 128:
        raise UserError(f"eps of row gratings is {epsilon_255}: give a whole number of 1 to 128")
    return epsilon_255


def draw(seed: int, p: int, bands: str, color: str) -> np.ndarray:
    """Returns p carriers, float64 `[p, 6]` as `waves` has them; fewer of a seed are the first.

    Args:
      seed: secret, who knows it can subtract the waves.
      p: how many.
      bands: periods as shares of the short side, such as "1/75,1/40", each for every carrier in
        turn.
      color: "chroma", "luma" or "all".

    Raises:
      UserError: `bands` has another form.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_STREAM,))
    rng = np.random.Generator(np.random.Philox(sequence))
    turned, hue, first = rng.random(), rng.random(), int(rng.integers(len(_SIGNS)))
    numbers, own = np.arange(p), rng.random((p, 2))
    periods = np.resize(_periods(bands), p)
    carriers = np.empty((p, 6))
    carriers[:, 0] = math.pi * ((turned + _GOLDEN * numbers) % 1)
    carriers[:, 1] = np.minimum(periods * (1 + _JITTER * (2 * own[:, 0] - 1)), 1)
    carriers[:, 2] = own[:, 1]
    if color == "chroma":
        carriers[:, COLOR] = _without_luminance(math.pi * ((hue + _PLASTIC * numbers) % 1))
    else:
        carriers[:, COLOR] = _SIGNS[(first + numbers) % len(_SIGNS)] if color == "all" else 1.0
    return carriers


def distances(carriers: np.ndarray) -> np.ndarray:
    """Returns how far p carriers are from each other `[p, p]`: 0 for equal ones.

    In each of three respects the distance of the nearest is 0: orientation (1 for a right angle),
    period (1 for an octave) and colour up to sign (1 for orthogonal ones); it is their length.
    """
    angle, period = carriers[:, ANGLE], np.log2(carriers[:, PERIOD])
    color = carriers[:, COLOR] / np.linalg.norm(carriers[:, COLOR], axis=1, keepdims=True)
    orientation = np.sin(angle[:, None] - angle)
    likeness = np.minimum(np.square(color @ color.T), 1)
    return np.sqrt(orientation**2 + np.square(period[:, None] - period) + 1 - likeness)


def _periods(bands: str) -> np.ndarray:
    try:
        periods = [float(Fraction(band.strip())) for band in bands.split(",")]
    except (ValueError, ZeroDivisionError):
        periods = [0.0]
    if not all(0 < period <= 1 for period in periods):
        raise UserError(
            f"bands of row gratings is {bands!r}: give shares of the short side, such as 1/75,1/40"
        )
    return np.array(periods)


def _without_luminance(angles: np.ndarray) -> np.ndarray:
    """Returns colours `[p, 3]` at these angles of the plane without luminance, largest value 1."""
    first = np.array([LUMINANCE[2], 0, -LUMINANCE[0]])
    second = np.cross(LUMINANCE, first)
    plane = np.stack([axis / np.linalg.norm(axis) for axis in (first, second)])
    colors = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane
    return colors / np.abs(colors).max(axis=1, keepdims=True)


def _clusters(given: Given) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the cluster of each image, int32 `[n]`, and the centres of clusters, if known."""
    if given.options["labels"] == "clusters":
        clusters = given.clusters()
        return clusters.assignment, clusters.centers
    labels = given.images.labels
    lacking = int((labels < 0).sum())
    if lacking or not len(labels):
        raise UserError(
            f"labels=folders of row gratings needs every image in a folder, {lacking} of "
            f"{len(labels)} are in none: move them into folders, or use labels=clusters"
        )
    folders, rows = np.unique(labels, return_inverse=True)
    if len(folders) < 2:
        raise UserError(
            "labels=folders of row gratings needs 2 folders or more, here is 1: one wave for all "
            "tells nothing apart; use labels=clusters"
        )
    return rows.astype(np.int32), None


def _far_apart(centers: np.ndarray, apart: np.ndarray) -> np.ndarray:
    """Returns a carrier for each cluster, so that near clusters get carriers that are far apart.

    Of the quadratic assignment problem an optimum that no exchange of two improves.

    Args:
      centers: `[p, d]`.
      apart: distances of p carriers `[p, p]`.
    """
    squares = np.square(centers[:, None].astype(np.float64) - centers).sum(axis=-1)
    nearness = np.exp(-squares / squares.mean())
    order, improved = np.arange(len(centers)), True
    while improved:
        improved = False
        for i, j in itertools.combinations(range(len(centers)), 2):
            others = np.delete(order, [i, j])
            near = np.delete(nearness[i] - nearness[j], [i, j])
            gain = near @ (apart[order[j], others] - apart[order[i], others])
            if gain > 1e-9:
                order[[i, j]] = order[[j, i]]
                improved = True
    return order
