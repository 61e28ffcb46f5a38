"""What a victim is, and what an entry of each of the tables of `victims/table.py` says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from ucjax.data.images import ImageSet
from ucjax.names import Name


@dataclass(frozen=True)
class VictimSpec:
    """What is trained and how; two victims with equal specs share their compiled programs.

    Attributes:
      model: a key of `table.MODELS`.
      recipes: keys of `table.RECIPES`, applied in this order.
      width: channels of the model's first stage, or of one of its attention heads.
      epochs: passes over the training images.
      batch_size: images a step, over all devices and processes.
      optimizer: "sgd" or "adamw".
      learning_rate: the highest; falls along a half cosine, step by step.
      final_learning_rate: where the cosine ends.
      warmup_epochs: the first epochs, in which the rate rises linearly, before the cosine.
      momentum: of SGD, without dampening.
      weight_decay: of every parameter (BatchNorm and biases too): L2 added to the gradient for
        SGD, decoupled for AdamW, both as in torch.
      short_side: pixels to which the images' short side has been resized.
      crop: pixels of the square crop, random in training and central in testing.
      mean: subtracted from the pixels, which lie in [0, 1].
      std: divides the difference.
      flip: whether training images are mirrored with probability 1/2.
      pretrain_epochs: passes over the images without their labels, before the others.
      clip_norm: gradients of all trained parameters together are shortened to this norm; 0: none.
    """

    model: str
    recipes: tuple[str, ...]
    width: int
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    final_learning_rate: float
    warmup_epochs: int
    momentum: float
    weight_decay: float
    short_side: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool
    pretrain_epochs: int = 0
    clip_norm: float = 0.0


@dataclass(frozen=True)
class Model:
    """A network that victims train.

    Attributes:
      sentence: what it is, for `ucjax compare --help` and the report.
      make: from the number of classes and the width, a module whose call `(x, *, train)` turns
        normalized images `[b, h, w, 3]` into logits `[b, classes]`. BatchNorm averages over the
        axis `parallel.AXIS`; the collection `batch_stats` and the numbers "dropout" are optional.
      defaults: settings of `config.victim` that it replaces, unless the column sets them.
      start: turns freshly drawn host variables into those that training starts from.
      trainable: whether the parameter at this path is trained; None: all are.
      contrast: whether it is a `models.simclr.Probed`, whose encoder is trained first.
    """

    sentence: str
    make: Callable[[int, int], nn.Module]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    start: Callable[[Any], Any] | None = None
    trainable: Callable[[tuple[str, ...]], bool] | None = None
    contrast: bool = False


class Forward(Protocol):
    """The network with its present weights, as a recipe's loss sees it."""

    def __call__(self, images: jax.Array, train: bool) -> tuple[jax.Array, Any]:
        """Returns logits `[b, classes]` of images `[b, h, w, 3]` in [0, 1], and `batch_stats`.

        With `train=False` the gradient reaches the images only, not the weights.
        """


# key, images [b, h, w, 3] in [0, 1], targets [b, classes] -> images, targets of the same shapes
Batch = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
# forward, images, targets, key -> loss [], logits [b, classes], batch_stats
Loss = Callable[[Forward, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array, Any]]


@dataclass(frozen=True)
class Recipe:
    """Something a victim does in each training step.

    Both functions are called inside `parallel.pmap` with this device's share of the batch and a
    key that is the same on all devices. Numbers are drawn for the whole batch and each device
    takes its share (`augment.own_share`), so that results do not depend on how many there are.

    Attributes:
      sentence: what it does, for `ucjax compare --help` and the report.
      batch: changes images and soft labels.
      loss: replaces the cross entropy of the targets; at most one recipe of a column has it.
    """

    sentence: str
    batch: Batch | None = None
    loss: Loss | None = None


Change = Callable[[Image.Image], Image.Image]
Pictures = Sequence[Callable[[], Image.Image]]


@dataclass(frozen=True)
class Treatment:
    """Something an exploiter does to every picture before training.

    Attributes:
      sentence: what it does, for `ucjax compare --help` and the report.
      make: from the number in its name ("jpeg75": 75; None where it takes none), a function from
        an RGB picture of any size to another. None where it is learned.
      argument: the numbers it may have in its name; None: none.
      learn: instead of `make`: from functions that open the n RGB training pictures, their labels
        int32 `[n]` and the number, such a function; training pictures only are changed.
      leak: instead of both: as `learn`, from functions that open the n training pictures and the
        same n without protection, of which the exploiter is to look at few, and the number.
    """

    sentence: str
    make: Callable[[int | None], Change] | None = None
    argument: range | None = None
    learn: Callable[[Pictures, np.ndarray, int | None], Change] | None = None
    leak: Callable[[Pictures, Pictures, int | None], Change] | None = None


@dataclass(frozen=True)
class Labels:
    """Whom the victim believes to see in each image.

    Attributes:
      train: class of each training image, int32 `[n]`.
      test: class of each test image, int32 `[m]`.
      class_names: what they mean.
    """

    train: np.ndarray
    test: np.ndarray
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Labelling:
    """What a label rule is given.

    Attributes:
      argument: what follows its name: "5" in "random-5", or the path of a mapping; else "".
      train: the n clean training images.
      test: the m test images.
      seed: of everything drawn.
      features: a surrogate's features of both sets, float32 `[n, d]` and `[m, d]`, by its name.
      mesh: the devices.
      noise_surrogate: the surrogate whose clusters the noise follows; "" for none.
      clusters: the settings of k-means, `config.clusters`.
    """

    argument: str
    train: ImageSet
    test: ImageSet
    seed: int
    features: Callable[[str], tuple[np.ndarray, np.ndarray]]
    mesh: Mesh
    noise_surrogate: str
    clusters: ConfigDict


@dataclass(frozen=True)
class LabelRule:
    """How a victim labels images.

    Attributes:
      sentence: what it does, for `ucjax compare --help` and the report.
      apply: makes the labels.
      check: refuses an argument, before anything is computed; None: it takes no argument.
      form: how it is written with its argument, such as "random-N".
    """

    sentence: str
    apply: Callable[[Labelling], Labels]
    check: Callable[[str], None] | None = None
    form: str = ""


@dataclass(frozen=True)
class Victim:
    """A column of the table: who trains on the published files, and how.

    Attributes:
      name: the column in its canonical form, which reads back as this victim.
      spec: what is trained and how.
      treatments: what is done to the pictures before, in this order: "jpeg75".
      treat: "train": the training pictures only, as in Image Shortcut Squeezing
        (arXiv:2301.13838); "both": those it is used on, too.
      labels: the label rule with its argument: "given", "random-5".
      share: percent of the training files that are protected, 1 to 100; the others are clean.
      probe: "files": a model with an encoder learns its labels from the training files as well;
        "clean": from their clean files.
      purify: a command that changes the pictures before anything else; "" for none.
    """

    name: Name
    spec: VictimSpec
    treatments: tuple[str, ...] = ()
    treat: str = "train"
    labels: str = "given"
    share: int = 100
    probe: str = "files"
    purify: str = ""
