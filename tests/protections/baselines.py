"""What a baseline is given in tests: few small images of two bright and dark classes."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from ucjax import config, names
from ucjax.clusters.kmeans import Clusters
from ucjax.data.images import ImageSet
from ucjax.networks.resnet import BatchNorm
from ucjax.protections import table
from ucjax.protections.contract import Given
from ucjax.protections.crafting import Network
from ucjax.runtime.parallel import AXIS
from ucjax.runtime.progress import MetricsFile
from ucjax.surrogates import Preprocessing, Surrogate


def images(n, side, classes=2, seed=0):
    """Square images, each class brighter than the one before, with noise of their own."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % classes).astype(np.int32)
    level = 64 + 128 * labels / max(classes - 1, 1)
    rows = rng.normal(level[:, None, None, None], 40, (n, side, side, 3)).clip(0, 255)
    return ImageSet(
        rows=rows.astype(np.uint8).reshape(n * side, side, 3),
        starts=np.arange(n + 1) * side,
        wide=np.zeros(n, bool),
        labels=labels,
        names=tuple(f"{i}.png" for i in range(n)),
        class_names=tuple("abcdefghijklmnop"[:classes]),
    )


def surrogate(side, head=True):
    """A surrogate whose classifier sees the mean color."""
    weights = np.random.default_rng(5).normal(size=(3, 7)).astype(np.float32)

    def embed(params, images):
        return images.mean((1, 2))

    def logits(params, images):
        return 8 * (images.mean((1, 2)) - 0.5) @ jnp.asarray(params)

    plain = Preprocessing((0, 0, 0), (1, 1, 1))
    return Surrogate(embed, weights, side, plain, "mean", "none", logits if head else None)


class Tiny(nn.Module):
    """A network that compiles in a second."""

    classes: int

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(nn.Conv(8, (4, 4), (4, 4), use_bias=False, name="conv")(x))
        return nn.Dense(self.classes, name="fc")(x.mean((1, 2)))


class TinyNormed(nn.Module):
    """The same with running statistics."""

    classes: int

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Conv(8, (4, 4), (4, 4), use_bias=False, name="conv")(x)
        x = nn.relu(BatchNorm(AXIS, name="bn")(x, train))
        return nn.Dense(self.classes, name="fc")(x.mean((1, 2)))


def tiny_normed(classes, crop, width):
    return Network(TinyNormed(classes))


def tiny_network(classes, crop, width):
    return Network(Tiny(classes))


def give(row, folder, mesh, *, n=22, side=16, classes=2, **others):
    """Returns what `row` is given; other attributes of `Given` replace these."""
    settings = config.with_settings(
        config.photos(), {"data__short_side": side, "data__crop": side, "clusters__k": 2}
    )
    shared, options = table.resolve(names.parse(row, "row"), settings)
    assignment = (np.arange(n) // 3 % 3).astype(np.int32)
    values = {
        "images": images(n, side, classes), "config": shared, "options": options, "seed": 3,
        "clusters": lambda: Clusters(np.zeros((3, 3), np.float32), assignment, 0.0, 1),
        "surrogate": lambda: surrogate(side), "folder": folder, "mesh": mesh,
        "metrics": MetricsFile(folder / "metrics.jsonl"),
    }  # fmt: skip
    return Given(**(values | others))


def levels(noise, n):
    """The noise of n images in pixel levels, float32 `[n, s, s, 3]`."""
    return np.stack([noise.patterns.of(int(row)) for row in noise.row[:n]]) * 255


def fit(row, folder, mesh, **others):
    """Returns the noise of `row`, and what it was given."""
    given = give(row, folder, mesh, **others)
    return table.find(names.parse(row, "row")).fit(given), given
