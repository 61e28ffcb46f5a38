"""Unlearnable Clusters on SUN397; everything else as in configs/pets.py.

    python -m ucjax.main --config=configs/sun397.py[:clip|clip_rn50|rn50]

Data: TFDS `sun397`, the set's own train and test splits, 397 classes.
Hardware and time: meant for one GPU or TPU; not run by us yet (see configs/pets.py).
Expected: no verified number is known to us.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(surrogate: str = "clip") -> ConfigDict:
    """Returns the experiment with one of `config.SURROGATES` (ucjax/config.py)."""
    c = pets.get_config(surrogate)
    c.data.name = "sun397"
    return c
