"""Your photos: protects a folder and measures the protection, offline.

    python -m ucjax.main --config=configs/folder.py --config.data.root=PHOTOS --workdir=out/photos

Data: class sub-folders, or one flat folder (then there are no victims: they need labels);
`train/` and `test/` are used if present, else a fifth is kept as the clean test set. Weights:
EfficientNet-Lite0, installed with ucjax.
Hardware and time: 93 minutes for 3,068 photos on 2 CPU cores that did other work as well, nearly
all of it for the twelve victims; `ucjax plan` says what your machine needs.
Expected: photographs of clothing (10 classes), with `--config.protect.geometry=crop`: clean
77.7 ± 1.1, random 76.3 ± 1.4, cluster_random 77.0 ± 0.7, protected 75.0 ± 0.6 % clean test accuracy
at the last epoch, mean ± std over 3 seeds: no protection to speak of. Yours are for you to measure.
"""

from ml_collections import ConfigDict

from ucjax import config


def get_config() -> ConfigDict:
    """Returns the experiment; `data.root` must be set."""
    return config.photos()
