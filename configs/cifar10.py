"""Unlearnable Clusters on CIFAR-10, the paper's set for analysing label-agnostic protection.

    python -m ucjax.main --config=configs/cifar10.py[:clip|clip_rn50|rn50|published[-SURROGATE]]

Data: TFDS `cifar10`, 50,000 images of 32 px to protect, 10,000 clean test images. They are
enlarged to the surrogate's geometry, as for every other set.
Hardware and time: meant for one GPU or TPU; not run by us yet (see configs/pets.py).
Expected: no verified number is known to us.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(argument: str = "clip") -> ConfigDict:
    """Returns the experiment of an argument (`config.experiment`)."""
    c = pets.get_config(argument)
    c.data.name = "cifar10"
    return c
