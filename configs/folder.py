"""Your photos: protects a folder and measures the protection, offline.

    python -m ucjax.main --config=configs/folder.py --config.data.root=PHOTOS --workdir=out/photos

Data: class sub-folders, or one flat folder (then there are no victims: they need labels);
`train/` and `test/` are used if present, else a fifth is kept as the clean test set. Weights:
EfficientNet-Lite0, installed with ucjax.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config() -> ConfigDict:
    """Returns the experiment; `data.root` must be set."""
    c = pets.get_config()
    c.data.update(source="folder", name="", root="", short_side=146, crop=128)
    c.surrogate.update(name="efficientnet_lite0", path="", batch_size=64)
    c.protect.geometry = "native"
    c.victim.update(width=16, epochs=30, batch_size=128, short_side=146, crop=128)
    return c
