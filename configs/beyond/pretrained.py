"""Victims that start from ImageNet weights, which the paper's table does not have.

    python -m ucjax.main --config=configs/beyond/pretrained.py[:DATA_SET|miniature]

Rows: UC with the paper's surrogates, with the victim's own weights as surrogate, which is the most
that noise against a surrogate can know, and gratings, which know none.
Expected: not known; measuring it is new.
Cost on Pets: 10 million image passes of victims, 0.6 of UC's generators. Your machine's time:
`ucjax plan --config=configs/beyond/pretrained.py --images=3680`. Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    c.protections = (
        *("clean", "random", "cluster_random", "cluster_untrained", "gratings"),
        *("uc", "uc:surrogate=clip_rn50", "uc:surrogate=efficientnet_lite0"),
    )
    c.victims = ("resnet18", "lite0", "lite0_probe")
    return sized(c, argument)
