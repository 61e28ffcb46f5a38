"""Unlearnable Clusters on Stanford Cars; everything else as in configs/pets.py.

    python -m ucjax.main --config=configs/cars.py[:clip|clip_rn50|rn50|published[-SURROGATE]]

Data: TFDS `cars196`, 8,144 images to protect, 8,041 clean test images, 196 classes.
Hardware and time: meant for one GPU or TPU; not run by us yet (see configs/pets.py).
Expected: an independent rerun of the authors' code (arXiv:2412.21061) found clean 43.25 ± 1.71, UC
25.91 ± 4.58 and UC-CLIP 10.93 ± 2.78 % clean test accuracy for ResNet-18 from scratch; compare them
with `clean_original` and `uc` of `:published` and `:published-clip_rn50` (see configs/pets.py).
"""

from ml_collections import ConfigDict

from configs import pets


def get_config(argument: str = "clip") -> ConfigDict:
    """Returns the experiment of an argument (`config.experiment`)."""
    c = pets.get_config(argument)
    c.data.name = "cars196"
    return c
