import functools

import jax
import numpy as np

from ucjax.networks.resnet import ResNet18


def test_resnet18_for_32_pixels_has_its_known_number_of_parameters():
    net = ResNet18(10, small=True)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(functools.partial(net.init, train=False), jax.random.key(0), image)
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == 11_173_962
    assert shapes["params"]["conv1"]["kernel"].shape == (3, 3, 3, 64)
