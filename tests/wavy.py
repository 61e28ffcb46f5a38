"""A protector of gratings without a surrogate, and folders that were protected by it."""

import itertools

import numpy as np
from PIL import Image

from ucjax.data.folder import labels
from ucjax.files.picture import PNG
from ucjax.files.protect import protect_files
from ucjax.protections import gratings, protector
from ucjax.protections.protector import Protector
from ucjax.protections.waves import Gratings


def photo(seed, width=480, height=360):
    """A picture with structures of several sizes that leaves waves some room."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for n in (5, 17, 60)
    ]
    blended = Image.blend(Image.blend(layers[0], layers[1], 0.4), layers[2], 0.2)
    return Image.fromarray((np.asarray(blended) * 0.8 + 25).astype(np.uint8))


def made_protector(wave="sine", color="chroma", bands="1/20", epsilon_255=16, folders=(), seed=0):
    return Protector(
        noise=None,
        gratings=Gratings(gratings.draw(seed, 4, bands, color), epsilon_255, 146, wave),
        centers=np.zeros((4, 3), np.float32),
        surrogate_name="s", surrogate_path="", surrogate_id="s", surrogate_sha256="ab" * 32,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), epsilon_255=epsilon_255, norm="linf", grain=1,
        short_side=146, crop=128, seed=seed, versions={}, folders=folders,
    )  # fmt: skip


def protect(photos, names, out, chosen=None, encoding=PNG, cluster_of=None):
    """Writes copies; without `cluster_of` the first picture is of cluster 0, and so on."""
    chosen = chosen or made_protector()
    protector.save(chosen, out / "protector")
    digest = protector.hashlib.sha256((out / "protector" / "protector.json").read_bytes())
    numbers, (own, classes) = itertools.count(), labels(names)
    return protect_files(
        photos, names, chosen, labels=own, class_names=classes,
        cluster_of=cluster_of or (lambda crop: next(numbers) % 4),
        protector_sha256=digest.hexdigest(), encoding=encoding, refused=lambda digest: "",
        folder=out, threads=1,
    )  # fmt: skip
