"""Holds a surrogate to what PyTorch computed for the same tiny checkpoint (see `make_towers`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from golden import tiny_checkpoints as tiny

_OUTPUTS = np.load(Path(__file__).with_name("towers.npz"))


def relative_error(got, expected):
    """The largest error, relative to the largest value expected."""
    return np.abs(np.asarray(got) - expected).max() / np.abs(expected).max()


def features(name, key="features"):
    """What PyTorch computed for `tiny.images` at the surrogate's size."""
    return _OUTPUTS[f"{name}/{key}"]


def features_error(name, surrogate, key="features"):
    """The relative error of the features of `tiny.images` at the surrogate's size."""
    images = tiny.images(surrogate.image_size)
    found = jax.jit(surrogate.embed)(surrogate.params, images)
    assert found.dtype == jnp.float32
    return relative_error(found, features(name, key))


def gradient_error(name, surrogate):
    """The relative error of the gradient of sum(features²) / 2 in the first image."""

    def half_square(images):
        return (surrogate.embed(surrogate.params, images) ** 2).sum() / 2

    gradient = jax.jit(jax.grad(half_square))(tiny.images(surrogate.image_size))
    return relative_error(gradient[:1], _OUTPUTS[f"{name}/gradient"])
