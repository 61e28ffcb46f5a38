"""Surrogates compute in bfloat16 on accelerators; what is trained and compared stays float32."""

from collections import Counter
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import tiny_checkpoints as tiny
from golden import towers

from ucjax.protections.uc.objective import Batch, make_objective
from ucjax.runtime import platforms
from ucjax.surrogates import load


def traced_for(platform):
    """What is traced inside has the forms of another platform."""
    return mock.patch.object(jax, "default_backend", return_value=platform)


PRODUCTS = ("dot_general", "conv_general_dilated")


GOLDEN = {name: towers.features(name) for name in ("clip", "clip_resnet", "resnet")}
NAMES = ("clip", "clip_resnet", "resnet", "efficientnet_lite0")


@pytest.fixture(scope="module")
def loaders(tmp_path_factory):
    """Functions of a precision that load each surrogate."""
    root = tmp_path_factory.mktemp("towers")
    paths = {
        "clip": tiny.write_clip(root / "clip"),
        "clip_resnet": tiny.write_clip_resnet(root / "clip_resnet", "timm"),
        "resnet": tiny.write_resnet(root / "resnet", "torchvision"),
    }
    names = {"clip": ("clip", 32), "clip_resnet": ("clip_rn50", 64), "resnet": ("rn50", 64)}
    found = {
        name: partial(load, names[name][0], path=str(path), image_size=names[name][1])
        for name, path in paths.items()
    }
    return found | {"efficientnet_lite0": partial(load, "efficientnet_lite0", image_size=32)}


@pytest.fixture(scope="module")
def towers_by_name(loaders):
    return {name: loader() for name, loader in loaders.items()}


def similarity(a, b):
    """The cosine of the angle between two arrays."""
    return np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)


@pytest.mark.parametrize("name", ["clip", "clip_resnet", "resnet"])
def test_an_accelerator_rounds_and_no_more(towers_by_name, name):
    surrogate = towers_by_name[name]

    def both(images):
        features, pull_back = jax.vjp(lambda x: surrogate.embed(surrogate.params, x), images)
        return features, pull_back(features)[0]

    found = {}
    for platform in ("cpu", "gpu"):
        with traced_for(platform):
            # A function of its own, as `jit` would give the second what it traced for the first.
            found[platform] = jax.jit(lambda x: both(x))(tiny.images(surrogate.image_size))
    (features, gradient), (rounded, rounded_gradient) = found["cpu"], found["gpu"]
    assert rounded.dtype == rounded_gradient.dtype == jnp.float32
    assert 0.999 < similarity(features, rounded) < 1 - 1e-7
    # Where rounding flips a ReLU, a gradient changes by all that went through it.
    assert similarity(gradient, rounded_gradient) > 0.97


def equations(jaxpr):
    """All equations, those of inner functions too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    yield from equations(part)


def products(surrogate):
    """The products of a forward and backward pass."""
    images = tiny.images(surrogate.image_size)
    gradient = jax.grad(lambda x: (surrogate.embed(surrogate.params, x) ** 2).sum())
    found = equations(jax.make_jaxpr(gradient)(images).jaxpr)
    return [equation for equation in found if equation.primitive.name in PRODUCTS]


def product_dtypes(surrogate):
    """How many products there are in each number format."""
    return Counter(equation.invars[0].aval.dtype.name for equation in products(surrogate))


@pytest.mark.parametrize("name", NAMES)
def test_nearly_all_products_are_in_bfloat16(towers_by_name, name):
    surrogate = towers_by_name[name]
    assert set(product_dtypes(surrogate)) == {"float32"}
    with traced_for("gpu"):
        counts = product_dtypes(surrogate)
    # The rest are projections of a single vector an image, and the attention of one query.
    assert counts["bfloat16"] >= 4 * counts.get("float32", 0)


def test_the_noise_gets_the_gradient_of_float32_and_losses_stay_float32(towers_by_name):
    surrogate = towers_by_name["clip"]
    rng = np.random.default_rng(0)
    images = rng.random((8, 32, 32, 3), np.float32)
    noise = (rng.random((3, 32, 32, 3), np.float32) - 0.5) / 8
    features = surrogate.embed(surrogate.params, images)
    cluster, share = np.arange(8, dtype=np.int32) % 3, np.full(8, 1 / 8, np.float32)
    arguments = noise, surrogate.params, features[:3], np.array([1, 2, 0])
    values = []
    for platform in ("cpu", "gpu"):
        with traced_for(platform):
            objective = jax.jit(make_objective(surrogate.embed, distance="kl", scope="cluster"))
            values.append(objective(*arguments, Batch(images, cluster, share, share)))
    exact, rounded = values
    assert all(part.dtype == jnp.float32 for part in rounded)
    np.testing.assert_allclose(rounded.loss, exact.loss, rtol=0.05)
    assert similarity(exact.gradient, rounded.gradient) > 0.995
    assert not np.array_equal(exact.gradient, rounded.gradient)


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_and_float32_can_be_had_on_a_cpu(loaders, name):
    def features(surrogate):
        images = tiny.images(surrogate.image_size)
        return np.asarray(jax.jit(surrogate.embed)(surrogate.params, images))

    exact, rounded = (loaders[name](precision=p) for p in ("float32", "bfloat16"))
    assert set(product_dtypes(exact)) == {"float32"}
    counts = product_dtypes(rounded)
    assert counts["bfloat16"] >= 4 * counts["float32"]
    found, coarse = features(exact), features(rounded)
    assert coarse.dtype == np.float32
    assert 0.995 < similarity(found, coarse) < 1 - 1e-7
    if name in GOLDEN:
        assert towers.relative_error(found, GOLDEN[name]) < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_float32_on_an_accelerator_keeps_all_digits_backward_too(loaders, name):
    exact, automatic = loaders[name](precision="float32"), loaders[name]()
    with traced_for("gpu"):
        found, usual = products(exact), products(automatic)
    assert {product.invars[0].aval.dtype.name for product in found} == {"float32"}
    highest = jax.lax.Precision.HIGHEST
    assert {product.params["precision"] for product in found} == {(highest, highest)}
    assert len(found) == len(usual)
    assert any(product.params["precision"] is None for product in usual)


def test_what_a_platform_decides():
    assert platforms.on_cpu()
    assert platforms.compute_dtype() == jnp.float32
    with traced_for("tpu"):
        assert not platforms.on_cpu()
        assert platforms.compute_dtype() == jnp.bfloat16
