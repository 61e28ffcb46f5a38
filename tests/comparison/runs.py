"""Tiny comparisons, for the tests of the room."""

import numpy as np
from PIL import Image

from configs import smoke
from ucjax.comparison import run


def tiny(folder, **settings):
    """Returns a config whose decoded images lie in `folder`; keys as `config.with_settings`."""
    c = smoke.get_config()
    c.data.cache = str(folder / "cache")
    c.noise.epochs = 1
    c.availability = False  # a convolutional network for hundreds of steps
    c.victims = ("linear",)
    c.update_from_flattened_dict({key.replace("__", "."): v for key, v in settings.items()})
    return c


def of_folder(root, folder, **settings):
    """Returns a config for photos in `root`, protected at their own size."""
    photos = {
        "data__source": "folder", "data__root": str(root), "data__train_count": 0,
        "data__test_count": 0, "files__geometry": "native",
    }  # fmt: skip
    return tiny(folder, **{**photos, **settings})


def fill(config, workdir, mesh, **options):
    return run.run(config, workdir, command=["test"], mesh=mesh, **options)


def photos(root, count, size=(60, 40), folders=("cat", "dög 2"), suffix=".jpg"):
    """Writes smooth random pictures, in turn to the folders; "" is the root itself."""
    for i in range(count):
        coarse = np.random.default_rng(i).integers(0, 256, (4, 4, 3), np.uint8)
        path = root / folders[i % len(folders)] / f"{i}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
