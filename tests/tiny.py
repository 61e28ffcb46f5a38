"""A victim and a surrogate that compile in a second: what holds for any is tested on them.

Tests in this process put them into the tables and take them out again; a job of its own process
takes the module `tiny_parts`, by `--config.modules`.
"""

from pathlib import Path

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ucjax.networks.resnet import BatchNorm, Conv
from ucjax.runtime import parallel
from ucjax.surrogates import Preprocessing, Surrogate
from ucjax.victims.contract import Model


class Tiny(nn.Module):
    """Two convolutions with BatchNorm, the second over half the pixels, and a linear layer."""

    classes: int
    width: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        for layer in (1, 2):
            x = Conv(self.width * layer, 3, layer, name=f"conv{layer}")(x)
            x = nn.relu(BatchNorm(self.axis_name, name=f"bn{layer}")(x, train))
        return nn.Dense(self.classes, name="fc")(jnp.mean(x, (1, 2)))


# What makes a job use them; its process finds the module in FOLDER.
JOB = (
    "--config.modules=('tiny_parts',)",
    "--config.surrogate.name=tiny",
    "--config.victims=('tiny',)",
)
FOLDER = Path(__file__).parent
VICTIM = Model("", lambda classes, width: Tiny(classes, width, parallel.AXIS))


def surrogate(path, image_size, precision):
    """The means of random features of patches of 4 pixels."""

    def embed(params, images):
        side = image_size // 4
        patches = images.reshape(-1, side, 4, side, 4, 3).swapaxes(2, 3)
        return nn.relu(patches.reshape(-1, side * side, 48) @ params["kernel"]).mean(1)

    kernel = np.random.default_rng(0).normal(size=(48, 16)).astype(np.float32)
    plain = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Surrogate(embed, {"kernel": kernel}, image_size, plain, "tiny", "0" * 64)
