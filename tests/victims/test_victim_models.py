import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from golden import make_resnet18 as golden

from ucjax.networks import resnet
from ucjax.ops.pooling import max_pool
from ucjax.runtime import parallel


def variable_shapes(net, images):
    variables = jax.eval_shape(lambda key: net.init(key, images, train=False), jax.random.key(0))
    return {name: x.shape for name, x in flatten_dict(variables, sep="/").items()}


def drawn(net):
    images, labels = golden.inputs()
    weights = golden.draw(variable_shapes(net, images))
    variables = unflatten_dict({k: jnp.asarray(v) for k, v in weights.items()}, sep="/")
    return variables, jnp.asarray(images), jnp.asarray(labels)


def train_pass(net, variables, images, labels):
    def loss(params):
        logits, updates = net.apply(
            variables | {"params": params}, images, train=True, mutable=["batch_stats"]
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), (logits, updates["batch_stats"])

    grads, (logits, batch_stats) = jax.grad(loss, has_aux=True)(variables["params"])
    return logits, grads, batch_stats


@pytest.fixture(scope="module")
def ours():
    """Everything the golden file holds, computed here."""
    net = resnet.ResNet18(golden.CLASSES, golden.WIDTH)
    variables, images, labels = drawn(net)
    evaluate = jax.jit(lambda v, x: net.apply(v, x, train=False))
    logits, grads, stats = jax.jit(lambda v, x, y: train_pass(net, v, x, y))(
        variables, images, labels
    )
    arrays = flatten_dict({"params": grads, "batch_stats": stats}, sep="/")
    return arrays | {"eval_logits": evaluate(variables, images), "train_logits": logits}


def test_resnet18_matches_torchvision(ours):
    with np.load(golden.GOLDEN) as theirs:
        assert {"eval_logits", "train_logits", *golden.GRADIENTS} < set(theirs)
        assert sum(name.startswith("batch_stats") for name in theirs) == 40
        for name in theirs:
            error = np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max()
            assert error < 1e-4, name


def test_batch_norm_does_not_depend_on_the_devices(ours, mesh):
    net = resnet.ResNet18(golden.CLASSES, golden.WIDTH, axis_name=parallel.AXIS)
    variables, images, labels = drawn(net)

    def step(variables, images, labels):
        logits, grads, stats = train_pass(net, variables, images, labels)
        return logits, jax.lax.pmean(grads, parallel.AXIS), stats

    logits, grads, stats = parallel.pmap(
        step,
        mesh=mesh,
        in_specs=(parallel.REPLICATED, parallel.SHARDED, parallel.SHARDED),
        out_specs=(parallel.SHARDED, parallel.REPLICATED, parallel.REPLICATED),
    )(variables, images, labels)
    sharded = flatten_dict({"params": grads, "batch_stats": stats}, sep="/")
    for name, value in (sharded | {"train_logits": logits}).items():
        error = np.abs(value - ours[name]).max() / np.abs(ours[name]).max()
        assert error < 1e-4, name


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 5)])
def test_max_pool_equals_reduce_window(size):
    # A permutation: equal maxima have no agreed gradient in XLA.
    x = jax.random.permutation(jax.random.key(0), 2 * size[0] * size[1] * 3)
    x = x.reshape(2, *size, 3).astype(jnp.float32) - 100

    def window(x):
        return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))

    def weighted_sum(pooled):
        weights = np.random.default_rng(1).standard_normal(pooled.shape).astype(np.float32)
        return (pooled * weights).sum(), pooled

    (ours, gradient), (theirs, expected) = (
        jax.jit(jax.grad(lambda x, f=f: weighted_sum(f(x)), has_aux=True))(x)[::-1]
        for f in (max_pool, window)
    )
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_the_first_of_equal_maxima_gets_the_gradient():
    gradient = jax.grad(lambda x: max_pool(x).sum())(jnp.ones((1, 4, 4, 1)))
    first = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(gradient[0, :, :, 0], first)


def test_published_size():
    shapes = variable_shapes(resnet.ResNet18(1000), jnp.zeros((1, 64, 64, 3)))
    parameters = sum(int(np.prod(s)) for name, s in shapes.items() if name.startswith("params"))
    assert parameters == 11_689_512  # torchvision's ResNet18_Weights.meta["num_params"]


def test_initialisation_is_torchvisions():
    net = resnet.ResNet18(7, 16)
    init = jax.jit(lambda key: net.init(key, jnp.zeros((1, 32, 32, 3)), train=True))
    weights = flatten_dict(init(jax.random.key(3, impl="rbg")), sep="/")
    for name, x in weights.items():
        if name.startswith("params/fc"):
            bound = (8 * 16) ** -0.5
            assert np.abs(x).max() <= bound
            assert np.unique(x).size == x.size
            assert np.abs(x).max() > 0.6 * bound
        elif name.endswith("kernel"):
            fan_out = x.shape[0] * x.shape[1] * x.shape[3]
            deviation = np.std(x) / np.sqrt(2 / fan_out)
            assert abs(deviation - 1) < 5 / np.sqrt(2 * x.size), name
        else:
            expected = 1.0 if name.endswith(("scale", "var")) else 0.0
            np.testing.assert_array_equal(x, expected)
