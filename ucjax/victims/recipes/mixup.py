"""Mixup: every training image has another one of the batch laid over it.

Source: Zhang et al., arXiv:1710.09412. The authors of Unlearnable Clusters mix less, and leave the
labels as they are.
"""

from __future__ import annotations

import jax

from ucjax.data import augment

_PAPER_SHARE = 0.9


def mix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mixes images `[b, h, w, 3]` and targets `[b, c]` by one lambda ~ Beta(1, 1) a batch.

    To be called in `parallel.pmap`; the partner of an image is anywhere in the whole batch.
    """
    share_key, partner_key = jax.random.split(key)
    share = jax.random.uniform(share_key)  # Beta(1, 1)
    partners = augment.shuffled(partner_key, (images, targets))
    return _between(share, images, partners[0]), _between(share, targets, partners[1])


def mix_as_in_the_paper(
    key: jax.Array, images: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns 0.9 of each image and 0.1 of another, with the image's own targets."""
    return _between(_PAPER_SHARE, images, augment.shuffled(key, images)), targets


def _between(share: jax.Array | float, ours: jax.Array, theirs: jax.Array) -> jax.Array:
    return share * ours + (1 - share) * theirs
