"""Random resized crops: every training image is a part of itself, enlarged to the full size.

Source: Szegedy et al., arXiv:1409.4842, drawn as torchvision's RandomResizedCrop draws them, but
not rounded to whole pixels, and from a quarter of the area on: 8 % would leave little of a photo
at the sides that victims have here.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ucjax.data import augment

_AREA = (0.25, 1.0)
_LOG_ASPECT = (math.log(3 / 4), math.log(4 / 3))
_TRIES = 10


def crop(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Enlarges a rectangle of each image `[b, h, w, 3]`, bilinear, to the image's own size.

    Its area is uniform in 0.25 to 1 of the image's, the logarithm of its aspect uniform between
    those of 3/4 and 4/3. To be called in `parallel.pmap`.
    """
    top, left, height, width = map(augment.own_share, boxes(key, augment.whole_batch(len(images))))
    sides = jnp.array(images.shape[1:3], jnp.float32)

    def enlarged(image: jax.Array, corner: jax.Array, size: jax.Array) -> jax.Array:
        scale = 1 / size
        return jax.image.scale_and_translate(
            image, image.shape, (0, 1), scale, -corner * sides * scale, "bilinear", antialias=False
        )

    corners, sizes = jnp.stack([top, left], 1), jnp.stack([height, width], 1)
    return jax.vmap(enlarged)(images, corners, sizes), targets


def boxes(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Draws rectangles of the unit square: top, left, height and width, `[count]` each.

    What does not fit is drawn again, up to ten times, and then is the whole square.
    """
    area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
    shape = (_TRIES, count)
    area = jax.random.uniform(area_key, shape, minval=_AREA[0], maxval=_AREA[1])
    low, high = _LOG_ASPECT
    aspect = jnp.exp(jax.random.uniform(aspect_key, shape, minval=low, maxval=high))
    widths, heights = jnp.sqrt(area * aspect), jnp.sqrt(area / aspect)
    fits = (widths <= 1) & (heights <= 1)
    first, found = jnp.argmax(fits, 0)[None], jnp.any(fits, 0)
    width, height = (
        jnp.where(found, jnp.take_along_axis(sides, first, 0)[0], 1.0)
        for sides in (widths, heights)
    )
    top = jax.random.uniform(top_key, (count,)) * (1 - height)
    left = jax.random.uniform(left_key, (count,)) * (1 - width)
    return top, left, height, width
