"""Unlearnable Clusters on Food-101; everything else as in configs/pets.py.

    python -m ucjax.main --config=configs/food.py[:clip|clip_rn50|rn50|published[-SURROGATE]]

Data: TFDS `food101`, 75,750 images to protect, 25,250 clean test images, 101 classes.
Hardware and time: meant for one GPU or TPU; not run by us yet (see configs/pets.py).
Expected: no verified number is known to us.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(argument: str = "clip") -> ConfigDict:
    """Returns the experiment of an argument (`config.experiment`)."""
    c = pets.get_config(argument)
    c.data.name = "food101"
    return c
