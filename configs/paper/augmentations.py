"""Whether the four augmentations that the paper tries restore the victims.

    python -m ucjax.main --config=configs/paper/augmentations.py[:DATA_SET|miniature]

As in the authors' code: a tenth of another image laid over each (Mixup), a square of 10 % of the
area from another image (CutMix) or black (CutOut), and Gaussian smoothing of 7 x 7 pixels. They are
weak; configs/beyond/defences.py has stronger ones. Every column has its own clean victims.
Expected: no verified number is known to us but those of the first column
(configs/paper/effectiveness.py).
Cost on Pets: 33.2 million image passes of victims, 0.4 of UC's generators. Your machine's time:
`ucjax plan --config=configs/paper/augmentations.py --images=3680`. Not run by us (docs/paper.md).
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
    recipes = ("mixup_paper", "cutmix_paper", "cutout_paper", "gauss_paper")
    c.victims = ("resnet18", *(f"resnet18+{recipe}" for recipe in recipes))
    return sized(c, argument)
