"""Several surrogates as one: clusters and noise then answer to all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ucjax.errors import UserError
from ucjax.surrogates.base import Surrogate


def split(name: str, path: str) -> list[tuple[str, str]]:
    """Pairs the names in "a+b" with the paths in "p+q"; no path is no path for each.

    Raises:
      UserError: other than one path a name.
    """
    names = name.split("+")
    paths = path.split("+") if path and len(names) > 1 else [path] * len(names)
    if len(paths) != len(names):
        raise UserError(
            f"surrogate {name!r} is {len(names)} networks but its path {path!r} {len(paths)}: give "
            "one path each, joined by '+', or none for their default weights"
        )
    return list(zip(names, paths, strict=True))


def join(surrogates: Sequence[Surrogate]) -> Surrogate:
    """Returns one surrogate whose features are those of all, one after the other: `[b, Σd]`.

    The features are not rescaled, so the surrogate of the larger ones weighs more: no scale is
    right for k-means, cosine and softmax at once, and none is known before images are seen.
    `params` is a dict by the surrogates' ids; `preprocessing` is that of the first, for the
    record, as each applies its own. There is no classifier, as each has its own.

    Raises:
      UserError: the same surrogate twice.
      ValueError: they are for images of different sizes.
    """
    ids = [part.id for part in surrogates]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise UserError(f"surrogate {twice[0]} is joined to itself: name each of them once")
    sizes = {part.image_size for part in surrogates}
    if len(sizes) > 1:
        raise ValueError(f"surrogates for images of {sorted(sizes)} px cannot be joined")

    def embed(params: Any, images: jax.Array) -> jax.Array:
        features = [part.embed(params[part.id], images) for part in surrogates]
        return jnp.concatenate(features, axis=1)

    return Surrogate(
        embed=embed,
        params={part.id: part.params for part in surrogates},
        image_size=sizes.pop(),
        preprocessing=surrogates[0].preprocessing,
        id=" + ".join(ids),
        sha256=hashlib.sha256("".join(part.sha256 for part in surrogates).encode()).hexdigest(),
    )
