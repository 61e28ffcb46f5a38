"""What protected files are worth when only a share of the training files is protected.

    python -m ucjax.main --config=configs/paper/mixture.py[:DATA_SET|miniature]

Columns: 20 to 100 % of the files protected, the rest clean, drawn by class. `absent` is the clean
share alone: what falls below it is worse than no file. Which shares the paper has is not verified.
Expected: no verified number is known to us but those of 100 % (configs/paper/effectiveness.py).
Cost on Pets: 33.2 million image passes of victims, 0.4 of UC's generators. Your machine's time:
`ucjax plan --config=configs/paper/mixture.py --images=3680`. Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    c.protections = ("clean", "absent", "cluster_random", "uc", "uc:surrogate=clip_rn50")
    c.victims = (*(f"resnet18:share={share}" for share in (20, 40, 60, 80, 90)), "resnet18")
    return sized(c, argument)
