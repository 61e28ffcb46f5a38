"""Unlearnable Clusters on ImageNet*, the first 100 classes; everything else as in configs/pets.py.

    python -m ucjax.main --config=configs/imagenet100.py[:clip|clip_rn50|rn50|published[-SURROGATE]]

Data: TFDS `imagenet100`, `imagenet2012` cut to its first 100 classes: train to
protect, validation as clean test.
Hardware and time: meant for one GPU or TPU; not run by us yet (see configs/pets.py).
Expected: no verified number is known to us.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(argument: str = "clip") -> ConfigDict:
    """Returns the experiment of an argument (`config.experiment`)."""
    c = pets.get_config(argument)
    c.data.name = "imagenet100"
    return c
