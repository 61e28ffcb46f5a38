"""Unlearnable Clusters on Oxford Flowers 102; everything else as in configs/pets.py.

    python -m ucjax.main --config=configs/flowers.py[:clip|clip_rn50|rn50|published[-SURROGATE]]

Data: TFDS `oxford_flowers102`, 2,040 images to protect (train + validation), 6,149 clean
test images, 102 classes.
Hardware and time: meant for one GPU or TPU; not run by us yet (see configs/pets.py).
Expected: no verified number is known to us.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(argument: str = "clip") -> ConfigDict:
    """Returns the experiment of an argument (`config.experiment`)."""
    c = pets.get_config(argument)
    c.data.name = "oxford_flowers102"
    return c
