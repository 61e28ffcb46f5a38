"""Unsupervised exploitation: SimCLR on the files without labels, then a linear probe.

    python -m ucjax.main --config=configs/paper/unsupervised.py[:DATA_SET|miniature]

The labels of the probe are those of the very files (what an exploiter has), or of the clean ones
(what the features are worth). Which of them the paper has is not verified.
Expected: no verified number is known to us.
Cost on Pets: 44.2 million image passes of victims, 0.4 of UC's generators. Your machine's time:
`ucjax plan --config=configs/paper/unsupervised.py --images=3680`. Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    c.protections = (
        *("clean", "random", "cluster_random", "cluster_untrained"),
        *("uc", "uc:surrogate=clip_rn50"),
    )
    c.victims = ("simclr_rn50", "simclr_rn50:probe=clean")
    return sized(c, argument)
