import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict
from golden import make_victims as golden

from ucjax.victims.table import MODELS


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet50", 23_583_845), ("regnetx_16gf", 8_310_917), ("efficientnet_b1", 6_560_581)],
)
def test_published_sizes(name, parameters):
    """As torchvision's at 37 classes."""
    net = MODELS[name].make(37, 64)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(lambda k, x: net.init(k, x, train=False), jax.random.key(0), images)
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == parameters


@pytest.mark.parametrize("name", ["resnet50", "regnet", "efficientnet"])
def test_logits_are_torchvisions(name):
    net = golden.nets()[name]
    variables = unflatten_dict(golden.weights_of(net), sep="/")
    images = golden.images()
    with np.load(golden.GOLDEN) as theirs:
        modes = [mode for mode in ("eval", "train") if f"{name}/{mode}" in theirs]
        for mode in modes:
            ours = jax.jit(
                lambda v, x, train=mode == "train": net.apply(
                    v, x, train=train, mutable=["batch_stats"]
                )[0]
            )(variables, images)
            expected = theirs[f"{name}/{mode}"]
            assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max(), mode
