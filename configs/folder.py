"""Your photos: protects a folder and measures the protection, offline.

    python -m ucjax.main --config=configs/folder.py --config.data.root=PHOTOS --workdir=out/photos

Data: class sub-folders, or one flat folder (then there are no victims: they need labels);
`train/` and `test/` are used if present, else a fifth is kept as the clean test set. Weights:
EfficientNet-Lite0, installed with ucjax.
Hardware and time: seen on 2 busy CPU cores for 3,068 photos: features 26 s, noise (4 epochs)
8 minutes, files 14 s an arm, a victim (10 epochs) 6 minutes.
Expected: unknown for your photos, which is why it is measured. A one-seed look at photographs of
clothing, with short training, showed no protection beyond the controls.
"""

from ml_collections import ConfigDict

from ucjax import config


def get_config() -> ConfigDict:
    """Returns the experiment; `data.root` must be set."""
    return config.photos()
