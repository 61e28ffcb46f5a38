"""The contract every surrogate keeps: frozen weights and one pure function on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True)
class Preprocessing:
    """What `embed` does first: `(pixels - mean) / std` per channel, on pixels in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A frozen feature extractor.

    Attributes:
      embed: `(params, images)` → features float32 `[b, d]`, for images float32 `[b, s, s, 3]`
        in [0, 1]. Pure, jittable and differentiable in the images; it applies `preprocessing`
        itself, so callers never do, and computes in `platforms.compute_dtype(precision)` between,
        where `precision` is what it was loaded with.
      params: pytree of host numpy arrays. It is an argument of `embed`, not a constant inside,
        so that callers decide where it lives and XLA does not fold it.
      image_size: s, the side of the square images `embed` is used with, in pixels.
      preprocessing: for the record (the published protector states it).
      id: the architecture and where its weights came from.
      sha256: hex SHA-256 of the weight file.
      logits: `(params, images)` → float32 `[b, classes]`, an ImageNet classifier's, on the features
        that `embed` returns and with weights in the same `params`; None if it has no classifier.
    """

    embed: Callable[[Any, jax.Array], jax.Array]
    params: Any
    image_size: int
    preprocessing: Preprocessing
    id: str
    sha256: str
    logits: Callable[[Any, jax.Array], jax.Array] | None = None
