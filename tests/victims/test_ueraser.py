"""UEraser's parts against Pillow's and loops written out, and that the worst change is taken."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ucjax.runtime import parallel
from ucjax.victims.recipes import trivial, ueraser

SIDE = 32


@pytest.fixture(scope="module")
def photo():
    """Smooth colours with some grain, uint8 `[32, 32, 3]`, of a range that can be stretched."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 216, (5, 5, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return (smooth + rng.normal(0, 4, smooth.shape)).clip(30, 220).astype(np.uint8)


def ours(operation, photo, strength):
    images = jnp.stack([jnp.zeros((SIDE, SIDE, 3)), jnp.asarray(photo, jnp.float32) / 255])
    return 255 * np.asarray(jax.jit(operation)(images, jnp.array([0.5, strength])))[1]


def affine(matrix):
    """Pillow's transform about the middle, (across, down) from (across, down), bilinear."""
    c = SIDE / 2

    def apply(picture):
        a, b, d, e = matrix
        data = (a, b, c - a * c - b * c, d, e, c - d * c - e * c)
        return picture.transform(
            picture.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
        )

    return apply


ANGLE = np.radians(15)
PILLOW = {
    "auto_contrast": (0.3, 1.01, lambda x: ImageOps.autocontrast(x)),
    "equalize": (0.3, 1e-3, lambda x: ImageOps.equalize(x)),
    "posterize": (0.6, 1e-3, lambda x: ImageOps.posterize(x, 2)),
    "solarize": (100 / 255 - 1e-4, 1e-3, lambda x: ImageOps.solarize(x, 100)),
    "sharpness": (0.9, 1.5, lambda x: ImageEnhance.Sharpness(x).enhance(0.1 + 1.8 * 0.9)),
    "rotate": (0.5, 1.01, lambda x: x.rotate(15, Image.Resampling.BILINEAR)),
    "shear_x": (0.5, 1.01, affine((1, 0.15, 0, 1))),
    "shear_y": (0.5, 1.01, affine((1, 0, 0.15, 1))),
}


@pytest.mark.parametrize("name", PILLOW)
def test_operations_are_pillows(name, photo):
    strength, tolerance, theirs = PILLOW[name]
    found = ours(getattr(trivial, name), photo, strength)
    expected = np.asarray(theirs(Image.fromarray(photo)), float)
    moved = name in ("rotate", "shear_x", "shear_y")
    # Pillow has no halves at the border: what is moved is compared inside.
    inner = np.s_[8:-8, 8:-8] if moved else np.s_[:]
    assert np.abs(found - expected)[inner].max() <= tolerance
    assert np.abs(expected - photo)[inner].max() > 5
    if moved:
        np.testing.assert_allclose(found[0, 0], 0, atol=1e-3)


@pytest.mark.parametrize(("name", "axis"), [("translate_x", 1), ("translate_y", 0)])
def test_moves_let_black_in(name, axis, photo):
    expected = np.roll(photo, 4, axis).astype(float)
    expected[(slice(None),) * axis + (slice(4),)] = 0
    np.testing.assert_allclose(ours(getattr(trivial, name), photo, 0.25), expected, atol=1e-2)


def test_light_is_multiplied_or_added(photo):
    for strength in (0.0, 0.4, 1.0):
        factor = 0.1 + 1.8 * strength
        for operation, expected in (
            (trivial.contrast, photo * factor), (trivial.brightness, photo + 255 * (factor - 1)),
        ):  # fmt: skip
            np.testing.assert_allclose(
                ours(operation, photo, strength), expected.clip(0, 255), atol=1e-2
            )


# At 50 a coefficient of colour lies on the border between two steps, which are up to 99 apart.
@pytest.mark.parametrize(("quality", "colors"), [(10, 1.0), (50, 3.5), (90, 1.0)])
def test_jpeg_is_pillows_but_for_rounding(quality, colors, photo):
    encoded = io.BytesIO()
    odd = photo[:27, :27]  # whose last blocks are filled up
    Image.fromarray(odd).save(encoded, "JPEG", quality=quality)
    expected = np.asarray(Image.open(encoded), float)
    found = (
        255
        * np.asarray(
            jax.jit(ueraser.jpeg)(jnp.asarray(odd, jnp.float32)[None] / 255, jnp.int32(quality))
        )[0]
    )
    apart = (found - expected)[:24, :24]  # libjpeg ends colours elsewhere
    assert np.abs(apart).mean() < colors
    assert np.abs(apart @ np.array([0.299, 0.587, 0.114])).mean() < 1
    assert np.abs(expected - odd).mean() > 1.6


def test_a_grid_is_refined_as_in_loops():
    rng = np.random.default_rng(0)
    grid, drawn, weight = rng.random((3, 3, 3)), rng.random((5, 5, 3)), 0.3
    expected = np.zeros((5, 5, 3))
    expected[::2, ::2] = grid
    for parity, steps in ((0, ((1, 1), (1, -1), (-1, 1), (-1, -1))),
                          (1, ((0, 1), (0, -1), (1, 0), (-1, 0)))):  # fmt: skip
        for i in range(5):
            for j in range(5):
                if (i + j) % 2 != parity or (parity == 0 and i % 2 == 0):
                    continue
                around = [
                    expected[i + a, j + b] for a, b in steps if 0 <= i + a < 5 and 0 <= j + b < 5
                ]
                assert len(around) in (3, 4)
                expected[i, j] = (1 - weight) * np.mean(around, 0) + weight * drawn[i, j]
    found = ueraser.refined(*(jnp.asarray(x, jnp.float32) for x in (grid, weight, drawn)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_fractal_is_rougher_the_rougher_it_is_to_be():
    draw = jax.jit(jax.vmap(ueraser.plasma))
    drawn = np.random.default_rng(0).random((6, 33, 33, 3), np.float32)
    steps = []
    for rough in (0.0, 0.3, 0.7):
        found = np.asarray(draw(drawn, jnp.full(6, rough)))
        np.testing.assert_array_equal(found[:, ::32, ::32], drawn[:, ::32, ::32])
        assert found.min() >= 0
        assert found.max() <= 1
        assert abs(found.mean() - 0.5) < 0.15
        steps.append(np.abs(np.diff(found, axis=1)).mean())
    assert 1.2 * steps[0] < steps[1]
    assert 2 * steps[1] < steps[2]


def test_the_worst_of_five_is_learnt_from(mesh, one_device):
    """The loss is the mean of the largest, and its gradient that at those images alone."""
    rng = np.random.default_rng(0)
    images = rng.random((4, 8, 8, 3)).astype(np.float32)
    targets = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    weights = rng.normal(size=(192, 3)).astype(np.float32)
    key = jax.random.key(1)
    whole, split = parallel.REPLICATED, parallel.SHARDED
    results = [
        parallel.pmap(
            worst_and_gradient, mesh=devices, in_specs=(whole, split, split, whole),
            out_specs=(whole, whole, split),
        )(weights, images, targets, key)
        for devices in (one_device, mesh)
    ]  # fmt: skip
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    value, gradient, seen = map(np.asarray, results[0])
    one = {"mesh": one_device, "in_specs": (split, whole), "out_specs": split}
    every = np.asarray(parallel.pmap(all_five, **one)(images, key))
    losses = np.stack([
        optax.softmax_cross_entropy(every[:, k].reshape(4, -1) @ weights, targets)
        for k in range(5)
    ])  # fmt: skip
    assert np.ptp(losses, axis=0).min() > 0.05
    assert value == pytest.approx(losses.max(0).mean(), rel=1e-5)
    chosen = every[np.arange(4), losses.argmax(0)]
    np.testing.assert_allclose(seen, chosen, atol=1e-5)
    rows = chosen.reshape(4, -1)
    likely = np.asarray(jax.nn.softmax(rows @ weights))
    np.testing.assert_allclose(gradient, rows.T @ (likely - targets) / 4, atol=1e-4)


def worst_and_gradient(weights, images, targets, key):
    """The loss of a linear victim, its gradient, and the images it was taken at."""

    def loss(weights):
        def forward(x, train):
            assert train
            return x.reshape(len(x), -1) @ weights, {"seen": x}

        value, _, stats = ueraser.worst(forward, images, targets, key)
        return value, stats["seen"]

    (value, seen), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    return *jax.lax.pmean((value, gradient), parallel.AXIS), seen


def all_five(images, key):
    every = jax.lax.map(lambda k: ueraser.changed(k, images), jax.random.split(key, 5))
    return every.swapaxes(0, 1)
