"""Small published collections, and what the tests write from them."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from ucjax.data.images import ImageSet, build, file_item
from ucjax.files import protect as protection
from ucjax.protections import controls
from ucjax.protections.noise import Noise, Pixels

CROP, EPS = 28, 16
CLUSTERS = np.array([0, 1, 2, 0, 1, 2])
NAMES = ("b/tall.png", "b/wide.jpg", "a/odd.png", "grey.png", "a/odd.jpg", "b/two words.bmp")
SIZES = ((150, 61), (48, 131), (37, 53), (40, 40), (64, 65), (33, 34))


def publish(root: Path, names=NAMES, sizes=SIZES) -> None:
    """Writes random smooth pictures, `sizes` being heights and widths."""
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        coarse = np.random.default_rng(number).integers(0, 256, (5, 5, 3), np.uint8)
        picture = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(root / name)


def collect(root: Path, names=NAMES, short_side=32) -> ImageSet:
    """Decodes the pictures of `root` in the order of `names`; image i has label i % 2."""
    items = [file_item(root / name, name, i % 2) for i, name in enumerate(names)]
    cache = root.parent / "cache"
    return build(items, short_side=short_side, cache_dir=cache, label="x", class_names=("a", "b"))


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by its path."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def sign_noise(index):
    return controls.image_signs(0, index, CROP, EPS)


def cluster_noise(index):
    return controls.cluster_signs(0, 3, CROP, EPS)[CLUSTERS[index]]


def no_noise(index):
    return np.zeros((CROP, CROP, 3), np.float32)


def settings(
    folder,
    noise_of=sign_noise,
    clusters=CLUSTERS,
    epsilon_255=EPS,
    norm="linf",
    crop=CROP,
    **others,
):
    """Arguments of `protect_images`; `noise_of` gives the noise of an image by its index."""
    patterns = Pixels(lambda row: noise_of(row)[:crop, :crop], crop, 32, epsilon_255, norm)
    noise = Noise(patterns, np.arange(1000), epsilon_255, norm, clusters)
    return {"noise": noise, "crop": crop, "folder": folder, "label": "protected", **others}


def geometries(root, images):
    """Both ways of writing, called with the same settings."""
    return {
        "crop": functools.partial(protection.protect_images, images, root=None),
        "native": functools.partial(protection.protect_images, images, root=root),
    }
