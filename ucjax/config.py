"""All settings of an experiment, explained: the paper's values, and those for an owner's photos.

The files in configs/ and the command `ucjax` derive from these.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from ucjax import names
from ucjax.errors import UserError

SURROGATES = {
    "clip": "openai/clip-vit-base-patch32",
    "clip_rn50": "timm/resnet50_clip.openai",
    "rn50": "timm/resnet50.tv_in1k",
}


def paper(surrogate: str = "clip") -> ConfigDict:
    """Returns the paper's experiment, with one of `SURROGATES`, for a data set still to be named.

    Raises:
      ValueError: an unknown surrogate.
    """
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate {surrogate!r}: choose one of {', '.join(SURROGATES)}")
    c = ConfigDict()
    c.seed = 0  # of the split, and of what is drawn about labels and shares
    c.expected_time = "not measured; made for one GPU or more"

    # The table: rows, columns and the seeds of both (see ucjax/names.py for their form).
    c.protections = ("clean", "random", "cluster_random", "uc")
    c.victims = ("resnet18",)
    c.noise_seeds = (0,)  # of k-means, noise and controls
    c.seeds = (0, 1, 2)  # of victims
    c.availability = True  # measures how early each row's noise is seen, before any victim
    c.modules = ()  # Python modules that add rows, columns or surrogates of a user's own

    c.data = d = ConfigDict()
    d.source = "tfds"  # "folder" | "tfds" | "textures" (synthetic, offline)
    d.name = ""  # TFDS: which set
    d.root = ""  # folder: your photos; TFDS: data_dir, empty for its default
    d.test_fraction = 0.2  # folder without train/ and test/: share kept as the clean test set
    d.split_unlabelled = False  # whether photos without a class folder may be kept for testing
    d.train_count = 0  # textures: images to protect
    d.test_count = 0  # textures: clean test images
    d.short_side = 256  # pixels; images are decoded once to this size
    d.crop = 224  # pixels; the side of the noise, of the surrogate's input and of "crop" files
    d.cache = ""  # folder of decoded images, empty for $UCJAX_CACHE or ~/.cache/ucjax

    c.surrogate = s = ConfigDict()
    # "clip" | "clip_rn50" | "rn50" | "efficientnet_lite0" | "packaged_clip"; several as "a+b"
    s.name = surrogate
    s.path = SURROGATES[surrogate]  # local folder or file, or Hugging Face id; of "a+b" "p+q"
    s.batch_size = 256  # images a step when features are computed
    s.precision = "auto"  # "float32" | "bfloat16" | "auto": bfloat16 but on a CPU

    c.clusters = k = ConfigDict()
    k.k = 10  # p in the paper
    k.n_init = 10  # restarts, the best is kept
    k.max_iterations = 300
    k.tolerance = 1e-4  # of the centres' shift, relative to the features' variance

    c.noise = n = ConfigDict()
    n.scope = "cluster"  # "cluster": the paper's sum; "all": every image for every noise (code)
    n.distance = "kl"  # "kl" | "cosine" | "l2"
    # "clamp": as published, 0.94 to 1.0 of eps but no gradient past it; "tanh": eps * tanh, which
    # at the published learning rate gives 0.29 to 0.45 of eps only.
    n.bound = "clamp"
    n.target = "offset"  # "offset": i + 1 mod p | "farthest" | "permuted"
    n.parametrization = "generator"  # "generator" | "direct": the pixels themselves
    # "direct": a noise is trained in cells of so many pixels a side and enlarged. Coarse noise
    # outlives resizing and a shift, which turn that of single pixels into something else, and is
    # seen as blotches of colour where that of single pixels looks like a camera's.
    n.grain = 1
    n.norm = "linf"  # "linf" | "rms": root mean square
    n.epsilon_255 = 16  # the budget, in levels of 8-bit pixels
    n.epochs = 50
    n.batch_size = 256  # over all devices
    n.learning_rate = 1e-4
    n.final_learning_rate = 1e-6  # cosine per step
    n.weight_decay = 5e-4  # L2, as torch's Adam
    n.width = 64  # channels of the generator's first layer
    n.blocks = 6  # its residual blocks
    n.flip = True
    n.order = "shuffled"  # of a batch's images; "sequential": as the authors' code, by class

    c.files = f = ConfigDict()
    f.geometry = "crop"  # "crop": centre crops, as published | "native": whole files
    # Of every row's files: "png" | "webp" (both lossless) | "jpeg" | "same" as photos
    f.format = "png"

    c.victim = v = ConfigDict()
    v.width = 64  # channels of the first stage, or of a head; 64 is torchvision's
    v.epochs = 90
    v.batch_size = 512  # over all devices
    v.optimizer = "sgd"  # "sgd" | "adamw"
    v.learning_rate = 0.1
    v.final_learning_rate = 0.0  # cosine per step
    v.warmup_epochs = 0  # in which the rate rises linearly, before the cosine
    v.momentum = 0.9  # of SGD
    v.weight_decay = 5e-4
    v.short_side = 256  # files are resized to this, as the published victims do, then cropped
    v.crop = 224
    v.mean = (0.5, 0.5, 0.5)  # subtracted from pixels in [0, 1]
    v.std = (0.5, 0.5, 0.5)
    v.flip = True
    v.pretrain_epochs = 0  # simclr_rn18 and simclr_rn50: without labels, before the others
    v.clip_norm = 0.0  # gradients are shortened to this norm, 0: as they are

    # Images live on the devices if this many MB a device hold them, else they are streamed;
    # 0 decides from the free memory.
    c.feed_budget_mb = 0
    return c.lock()


def published(surrogate: str = "rn50") -> ConfigDict:
    """Returns the authors' code rather than the paper's text, for a data set still to be named.

    Every image for every generator, batches in the order of the classes, float32 surrogates, and
    as controls what else would give such numbers. "rn50" is their UC, "clip_rn50" UC-CLIP.

    Raises:
      ValueError: an unknown surrogate.
    """
    c = paper(surrogate)
    c.protections = (
        "clean_original", "clean", "random", "cluster_random", "cluster_untrained", "uc",
    )  # fmt: skip
    c.surrogate.precision = "float32"
    c.noise.update(scope="all", order="sequential")
    c.victim.final_learning_rate = 1e-6
    return c


def experiment(argument: str) -> ConfigDict:
    """Returns `published` for "published" or "published-SURROGATE", else `paper` for a surrogate.

    Raises:
      ValueError: an unknown surrogate.
    """
    kind, dash, surrogate = argument.partition("-")
    if kind != "published":
        return paper(argument)
    return published(surrogate) if dash else published()


# What owners get unless they ask for another row, the same as --strength strong: docs/results.md.
OWNERS_ROW = "gratings:color=all"
# Images that the noise and each victim see at least: with a few hundred photos they would end
# after a few dozen steps, long before a victim knows its photos.
_NOISE_SEES, _VICTIM_SEES = 15_000, 30_000


def photos(count: int = 0, row: str = "") -> ConfigDict:
    """Returns the settings for a folder of photos on a laptop, offline.

    Args:
      count: their number, 0 where unknown: few photos get fewer clusters and more epochs.
      row: the one to protect them with, where it is the only one. Waves have no size, so that
        clusters for them are found in larger pictures, where they are purer: docs/results.md.

    Raises:
      UserError: `row` has another form.
    """
    c = paper()
    c.expected_time = "see ucjax plan"
    c.data.update(source="folder", short_side=146, crop=128)
    if row and names.parse(row, "row").base == "gratings":
        c.data.update(short_side=224, crop=224)
    c.surrogate.update(name="efficientnet_lite0", path="", batch_size=64)
    # The pixels themselves: ten generators take a CPU hours at this size.
    c.noise.update(
        parametrization="direct",
        bound="tanh",  # which at this learning rate fills the budget
        epochs=_epochs(6, _NOISE_SEES, count),
        batch_size=32,
        learning_rate=0.3,
        final_learning_rate=0.03,
        weight_decay=0.0,
    )
    c.clusters.k = max(2, min(10, count)) if count else 10
    c.files.geometry = "native"
    c.victim.update(width=16, batch_size=32, learning_rate=0.05)
    c.victim.epochs = _epochs(20, _VICTIM_SEES, count)
    c.victim.update(short_side=146, crop=128)
    return c


def _epochs(least: int, images_seen: int, count: int) -> int:
    return max(least, math.ceil(images_seen / count)) if count else least


def with_settings(config: ConfigDict, settings: Mapping[str, Any]) -> ConfigDict:
    """Returns the config with keys set; "__" in a name stands for the dot.

    Raises:
      UserError: a wrong key or value.
    """
    try:
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in settings.items()})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(in_one_line(error)) from error
    return config


def in_one_line(error: Exception) -> str:
    """Returns what ml_collections says of a wrong key or value, without the traceback in it."""
    message = str(error.args[0] if error.args else error)
    if "Traceback" in message:
        message = message.strip().splitlines()[-1].split(": ", 1)[-1]
    typo = re.search('Did you mean "(.+)" instead of "(.+)"', message)
    if typo:
        return f"the config has no key {typo[2]!r}: did you mean {typo[1]!r}?"
    return " ".join(message.split())
