"""CutMix: a rectangle of every training image is another image's.

Source: Yun et al., arXiv:1905.04899. The authors of Unlearnable Clusters paste a smaller square,
and leave the labels as they are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ucjax.data import augment

_PAPER_AREA = 0.1


def mix(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Pastes one rectangle of other images, in the same place in all images of the batch.

    Its area is 1 - lambda, lambda ~ Beta(1, 1), around a uniform pixel, and what lies outside of
    the image is cut off; the targets `[b, c]` are mixed by the area that is left. To be called in
    `parallel.pmap` on images `[b, h, w, 3]`; the partner is anywhere in the whole batch.
    """
    share_key, place_key, partner_key = jax.random.split(key, 3)
    height, width = images.shape[1:3]
    side = jnp.sqrt(jax.random.uniform(share_key))  # of the area 1 - lambda, uniform as lambda is
    spans = []
    for k, n in zip(jax.random.split(place_key), (height, width), strict=True):
        center, half = jax.random.randint(k, (), 0, n), jnp.floor(side * n).astype(jnp.int32) // 2
        spans.append((jnp.maximum(center - half, 0), jnp.minimum(center + half, n)))
    (top, bottom), (left, right) = spans
    others, theirs = augment.shuffled(partner_key, (images, targets))
    share = (bottom - top) * (right - left) / (height * width)
    mixed = (1 - share) * targets + share * theirs
    return _pasted(images, others, (top, bottom), (left, right)), mixed


def mix_as_in_the_paper(
    key: jax.Array, images: jax.Array, targets: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Pastes one square of 10 % of the area, in the same place in all images; labels are kept."""
    place_key, partner_key = jax.random.split(key)
    side = int(_PAPER_AREA**0.5 * images.shape[1])
    rows, columns = (
        (first, first + side)
        for first in (
            jax.random.randint(k, (), 0, n - side + 1)
            for k, n in zip(jax.random.split(place_key), images.shape[1:3], strict=True)
        )
    )
    return _pasted(images, augment.shuffled(partner_key, images), rows, columns), targets


def _pasted(
    images: jax.Array,
    others: jax.Array,
    rows: tuple[jax.Array, jax.Array],
    columns: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """Takes the others' pixels from the first row and column to before the last."""

    def inside(span: tuple[jax.Array, jax.Array], length: int) -> jax.Array:
        return (jnp.arange(length) >= span[0]) & (jnp.arange(length) < span[1])

    height, width = images.shape[1:3]
    box = inside(rows, height)[:, None] & inside(columns, width)[None]
    return jnp.where(box[None, :, :, None], others, images)
