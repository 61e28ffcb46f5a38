"""Unlearnable Clusters on SUN397; everything else as in configs/pets.py.

    python -m ucjax.main --config=configs/sun397.py[:clip|clip_rn50|rn50|published[-SURROGATE]]

Data: TFDS `sun397`, the set's own train and test splits, 397 classes.
Hardware and time: meant for one GPU or TPU; not run by us yet (see configs/pets.py).
Expected: no verified number is known to us.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(argument: str = "clip") -> ConfigDict:
    """Returns the experiment of an argument (`config.experiment`)."""
    c = pets.get_config(argument)
    c.data.name = "sun397"
    return c
