"""Unlearnable Clusters on Oxford-IIIT Pets: the paper's main experiment.

    python -m ucjax.main --config=configs/pets.py                      CLIP ViT-B/32 as surrogate
    python -m ucjax.main --config=configs/pets.py:published            UC as in the authors' code
    python -m ucjax.main --config=configs/pets.py:published-clip_rn50  UC-CLIP likewise
    python -m ucjax.main --config=configs/pets.py:rn50                 UC by the paper's sum

Data: TFDS `oxford_iiit_pet`, 3,680 images to protect, 3,669 clean test images, 37 classes.
Weights: a Hugging Face id, fetched on first use, or a local folder (`--config.surrogate.path=`).
Hardware and time: meant for one GPU or TPU; not run by us yet, since neither the data nor the
weights can be had where ucjax is developed.
Expected: an independent rerun of the authors' code (arXiv:2412.21061) found, for ResNet-18 from
scratch, clean 49.56 ± 0.81, UC 20.91 ± 1.17 and UC-CLIP 24.07 ± 4.92 % clean test accuracy. What
equals what: its clean victims train on the original files (row `clean_original`), its noise is that
of `:published` and `:published-clip_rn50` (every image for every generator, clamped). The other
arguments train each generator on its own cluster, as the paper's sum says: no number is known.

Every key is explained in ucjax/config.py and may be overridden:
`--config.noise.epochs=10 --config.seeds="(0,1,2,3,4)"`.
"""

from ml_collections import ConfigDict

from ucjax import config


def get_config(argument: str = "clip") -> ConfigDict:
    """Returns the experiment of an argument (`config.experiment`)."""
    c = config.experiment(argument)
    c.data.name = "oxford_iiit_pet"
    return c
