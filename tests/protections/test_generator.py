from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from golden import make_generator as golden

from ucjax.protections.uc.generator import NoiseGenerator


def parameters(net, size):
    """Drawn as for the golden file."""
    z = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), z)["params"]
    shapes = {name: x.shape for name, x in flatten_dict(shapes, sep="/").items()}
    return unflatten_dict(golden.draw(shapes), sep="/")


@partial(jax.jit, static_argnums=0)
def output_and_gradient(net, params, z, g):
    output, pull = jax.vjp(lambda params: net.apply({"params": params}, z), params)
    return output, pull(g)[0]


apply = jax.jit(NoiseGenerator(golden.WIDTH, golden.BLOCKS).apply)


def error(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


def test_published_size_has_7_84_million_parameters():
    z = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(NoiseGenerator().init, jax.random.key(0), z)
    assert sum(x.size for x in jax.tree.leaves(params)) == 7_841_411


def test_outputs_and_gradients_match_pytorch():
    net = NoiseGenerator(golden.WIDTH, golden.BLOCKS)
    params, (z, g) = parameters(net, golden.SIZE), golden.inputs()
    _, gradient = output_and_gradient(net, params, z[:1], g[:1])
    ours = {f"gradient/{name}": x for name, x in flatten_dict(gradient, sep="/").items()}
    ours["outputs"] = apply({"params": params}, z)
    with np.load(golden.GOLDEN) as theirs:
        assert set(theirs) == set(ours)
        for name in theirs:
            assert error(ours[name], theirs[name]) < 1e-4, name


def test_images_of_a_batch_do_not_see_each_other():
    params = {"params": parameters(NoiseGenerator(golden.WIDTH, golden.BLOCKS), golden.SIZE)}
    z, _ = golden.inputs()
    z = np.stack([z[0], 5 * z[1] - 3])
    separate = np.concatenate([apply(params, z[:1]), apply(params, z[1:])])
    np.testing.assert_allclose(apply(params, z), separate, atol=1e-5)
    assert np.abs(separate).max() < 1


def test_stacked_generators_equal_separate_ones():
    net = NoiseGenerator(golden.WIDTH, golden.BLOCKS)
    first, (z, g) = parameters(net, golden.SIZE), golden.inputs()
    second = jax.tree.map(lambda x: x * 1.5 + 0.1, first)
    stacked = jax.tree.map(lambda *x: jnp.stack(x), first, second)
    z, g = z[:, None], g[:, None]
    together = jax.jit(jax.vmap(partial(output_and_gradient, net)))(stacked, z, g)
    for i, params in enumerate((first, second)):
        alone = output_and_gradient(net, params, z[i], g[i])
        for ours, theirs in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            assert error(ours[i], theirs) < 1e-5


def test_initial_weights_fill_pytorchs_ranges():
    z = jnp.zeros((1, 8, 8, 3))
    params = jax.jit(NoiseGenerator(width=16, blocks=0).init)(jax.random.key(0), z)["params"]
    fan_in = {"stem": 49 * 3, "down1": 9 * 16, "up1": 9 * 32, "up2": 9 * 16, "head": 49 * 16}
    for name, n in fan_in.items():
        assert 0.97 * n**-0.5 < np.abs(params[name]["kernel"]).max() <= n**-0.5, name
    assert np.abs(params["bias"]).max() <= (49 * 16) ** -0.5


@pytest.mark.parametrize("size", [(10, 12), (12, 10), (4, 4)])
def test_unfit_sizes_are_refused(size):
    with pytest.raises(ValueError, match="multiples of 4, at least 8"):
        NoiseGenerator().init(jax.random.key(0), jnp.zeros((1, *size, 3)))
