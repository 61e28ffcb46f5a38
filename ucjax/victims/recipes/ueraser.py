"""UEraser: the victim learns from images changed so much that a weak cue is lost in them.

Source: Qin et al., arXiv:2303.15127, with APBench's settings (arXiv:2308.03258). What its authors
call UEraser goes from `worst` to `changed` after some epochs, which no recipe here does.
"""

from __future__ import annotations

import functools
import io
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from PIL import Image

from ucjax.data import augment
from ucjax.victims.contract import Forward
from ucjax.victims.recipes import trivial

_DRAWS = 5
# Pixels a side of CIFAR's images; larger ones are also encoded as JPEG, and changed more.
_SMALL = 32
_TO_YCC = np.array(
    [(0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)], np.float32
)
_FROM_YCC = np.linalg.inv(_TO_YCC)


def change(key: jax.Array, images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns each image changed once (UEraser-Lite); targets are kept."""
    return changed(key, images), targets


def worst(
    forward: Forward, images: jax.Array, targets: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array, Any]:
    """Returns the loss of the worst of five changes of each image (UEraser-Max).

    The five are looked at in training mode; the gradient and BatchNorm's averages are those of one
    more pass, over the images chosen.
    """

    def drawn(draw_key: jax.Array) -> tuple[jax.Array, jax.Array]:
        candidates = changed(draw_key, images)
        logits, _ = forward(candidates, train=True)
        return candidates, optax.softmax_cross_entropy(lax.stop_gradient(logits), targets)

    candidates, losses = lax.map(drawn, jax.random.split(key, _DRAWS))
    chosen = candidates[jnp.argmax(losses, 0), jnp.arange(len(images))]
    logits, stats = forward(chosen, train=True)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets)), logits, stats


def changed(key: jax.Array, images: jax.Array) -> jax.Array:
    """Changes images `[b, s, s, 3]` in [0, 1]; to be called in `parallel.pmap`.

    In turn: JPEG of a quality of 10 to 99, one for the batch (not of images up to 32 pixels), a
    fractal added, another one multiplied, the channels permuted in every other image, and one
    operation of TrivialAugment.
    """
    jpeg_key, own_key, last_key = jax.random.split(key, 3)
    large = images.shape[1] > _SMALL
    if large:
        images = jpeg(images, jax.random.randint(jpeg_key, (), 10, 100))
    least_light, least_rough = (0.3, 0.1) if large else (0.5, 0.3)

    def one(key: jax.Array, image: jax.Array) -> jax.Array:
        number_key, grid_key = jax.random.split(key)
        side = image.shape[0]
        # Few draws of few shapes: each is a long program.
        light, rough, rougher, toss, *order = jax.random.uniform(number_key, (7,))
        grids = jax.random.uniform(grid_key, (2, *(_grid(side),) * 2, 3))
        added = plasma(grids[0], 0.3 + 0.4 * rough)[:side, :side]
        factor = plasma(grids[1], least_rough + (0.7 - least_rough) * rougher)[:side, :side]
        light = least_light + (1 - least_light) * light
        image = jnp.clip(image + light * (2 * added - 1), 0, 1)
        image = jnp.clip((image - 0.5) * 4 * factor + 0.5, 0, 1)
        return jnp.where(toss < 0.5, image[..., jnp.argsort(jnp.stack(order))], image)

    images = jax.vmap(one)(augment.own_keys(own_key, len(images)), images)
    return trivial.apply(last_key, images)


def _grid(side: int) -> int:
    """Returns the least 2^n + 1 that is enough for a side, n at least 1."""
    return 2 ** max(math.ceil(math.log2(side - 1)), 1) + 1


def plasma(drawn: jax.Array, roughness: jax.Array) -> jax.Array:
    """Makes a fractal of each channel of numbers in [0, 1] by the diamond-square algorithm.

    The corners and what is between them are refined: every new point is the mean of its
    neighbours and its number, whose weight is `roughness` to the power of the round.

    Args:
      drawn: `[2^n + 1, 2^n + 1, 3]`.
      roughness: from 0 to 1.
    """
    step = len(drawn) - 1
    grid, weight = drawn[::step, ::step], jnp.zeros_like(roughness)
    while step > 1:
        step //= 2
        grid = refined(grid, weight, drawn[::step, ::step])
        weight = roughness if len(grid) == 3 else weight * roughness
    return grid


def refined(grid: jax.Array, weight: jax.Array, drawn: jax.Array) -> jax.Array:
    """Puts points between those of a grid `[n, n, 3]`: `[2n - 1, 2n - 1, 3]`.

    Args:
      grid: the points.
      weight: of what is drawn, against the mean of the neighbours.
      drawn: numbers `[2n - 1, 2n - 1, 3]`.
    """
    middles = (grid[:-1, :-1] + grid[1:, :-1] + grid[:-1, 1:] + grid[1:, 1:]) / 4
    middles = (1 - weight) * middles + weight * drawn[1::2, 1::2]

    def between(points: jax.Array, beside: jax.Array, own: jax.Array) -> jax.Array:
        """Means of points left and right, and of the middles above and below that there are."""
        around = jnp.pad(beside, ((1, 1), (0, 0), (0, 0)))
        count = np.full((len(points), 1, 1), 4, np.float32)
        count[[0, -1]] = 3
        mean = (points[:, :-1] + points[:, 1:] + around[:-1] + around[1:]) / count
        return (1 - weight) * mean + weight * own

    beside = between(grid, middles, drawn[::2, 1::2])
    turned = (x.swapaxes(0, 1) for x in (grid, middles, drawn[1::2, ::2]))
    below = between(*turned).swapaxes(0, 1)
    # Laid between one another.
    upper = _alternating(grid, beside, 1)
    return _alternating(upper, _alternating(below, middles, 1), 0)


def _alternating(first: jax.Array, second: jax.Array, axis: int) -> jax.Array:
    """Returns the entries of both along an axis in turn; the first has one more."""
    zero = jnp.float32(0)
    every = [(0, 0, int(i == axis)) for i in range(first.ndim)]
    between = [(1, 1, 1) if i == axis else (0, 0, 0) for i in range(first.ndim)]
    return lax.pad(first, zero, every) + lax.pad(second, zero, between)


def jpeg(images: jax.Array, quality: jax.Array) -> jax.Array:
    """Loses of images `[b, s, s, 3]` what JPEG of a quality does, with colours of half the size."""
    count, height, width = images.shape[:3]
    short = [(0, -side % 16) for side in (height, width)]
    pixels = 255 * jnp.pad(images, [(0, 0), *short, (0, 0)], mode="edge")
    # Rounded where an encoder and a decoder round.
    planes = jnp.rint(jnp.einsum("ij,bhwj->ibhw", _TO_YCC, pixels))
    scale = jnp.where(quality < 50, 5000 // jnp.maximum(quality, 1), 200 - 2 * quality)
    tables = jnp.clip((jnp.array(_tables()) * scale + 50) // 100, 1, 255).astype(jnp.float32)
    light = jnp.clip(jnp.rint(_quantized(planes[0] - 128, tables[0]) + 128), 0, 255)
    colors = planes[1:].reshape(2 * count, planes.shape[2] // 2, 2, planes.shape[3] // 2, 2)
    colors = jnp.clip(jnp.rint(_quantized(jnp.rint(colors.mean((2, 4))), tables[1])), -128, 127)
    colors = _enlarged(_enlarged(colors, 1), 2).reshape(2, *light.shape)
    back = jnp.einsum("ij,jbhw->bhwi", _FROM_YCC, jnp.stack([light, colors[0], colors[1]]))
    return jnp.clip(back / 255, 0, 1)[:, :height, :width]


def _enlarged(planes: jax.Array, axis: int) -> jax.Array:
    """Doubles an axis; new pixels are three quarters the nearest and one quarter the next."""
    last = planes.shape[axis] - 1
    before = planes.take(jnp.maximum(jnp.arange(last + 1) - 1, 0), axis)
    after = planes.take(jnp.minimum(jnp.arange(last + 1) + 1, last), axis)
    pairs = jnp.stack([0.75 * planes + 0.25 * x for x in (before, after)], axis + 1)
    return pairs.reshape(*planes.shape[:axis], -1, *planes.shape[axis + 1 :])


@functools.cache
def _tables() -> np.ndarray:
    """Returns the tables of light and colour at quality 50: int32 `[2, 8, 8]`."""
    encoded = io.BytesIO()
    Image.new("RGB", (16, 16)).save(encoded, "JPEG", quality=50)
    found = Image.open(encoded).quantization  # type: ignore[attr-defined]
    return np.array([found[0], found[1]], np.int32).reshape(2, 8, 8)


def _quantized(planes: jax.Array, table: jax.Array) -> jax.Array:
    """Rounds the cosine transforms of blocks of 8 x 8 pixels of `[n, h, w]` to a table's steps."""
    n, height, width = planes.shape
    k = np.arange(8)
    basis = np.cos(np.pi * (2 * k[None] + 1) * k[:, None] / 16) / 2
    basis[0] /= 2**0.5
    waves = jnp.array(basis, jnp.float32)
    blocks = planes.reshape(n, height // 8, 8, width // 8, 8)
    found = jnp.einsum("ui,nyixj,vj->nyuxv", waves, blocks, waves)
    steps = table.reshape(1, 1, 8, 1, 8)
    found = jnp.rint(found / steps) * steps
    return jnp.einsum("ui,nyuxv,vj->nyixj", waves, found, waves).reshape(n, height, width)
