"""Your photos: protects a folder and measures the protection, offline.

    python -m ucjax.main --config=configs/folder.py --config.data.root=PHOTOS --workdir=out/photos

Data: class sub-folders, or one flat folder (then there are no victims: they need labels);
`train/` and `test/` are used if present, else a fifth is kept as the clean test set. Weights:
EfficientNet-Lite0, installed with ucjax. Clusters are found in crops of 128 px, as large as the
noise of `uc`; `ucjax protect` finds those of waves at 224 px, with which victims end lower:
`--config.data.short_side=224 --config.data.crop=224`, and `uc` trains three times as long.
Hardware and time: the run below took 50 minutes on 2 CPU cores that did other work as well, nearly
all of it for the 24 victims of eight rows; `ucjax plan` says what your machine needs.
Expected: 2,000 photographs of clothing (10 classes), `--config.data.train_count=2000
--config.victim.epochs=12`: clean 61.7 ± 1.5, random 64.7 ± 0.8, cluster_random 61.8 ± 2.1, uc
63.8 ± 0.3, gratings:color=all 55.4 ± 5.4 % clean test accuracy at the last epoch, mean ± std over 3
seeds. Yours are for you to measure.
"""

from ml_collections import ConfigDict

from ucjax import config


def get_config() -> ConfigDict:
    """Returns the experiment; `data.root` must be set."""
    c = config.photos()
    c.protections = (*c.protections, config.OWNERS_ROW)
    return c
