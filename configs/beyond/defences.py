"""What an exploiter can do against the noise: every recipe and treatment of ucjax.

    python -m ucjax.main --config=configs/beyond/defences.py[:DATA_SET|miniature]

Treatments change the training pictures only. Every column has its own clean victims: a defence
that costs them as much restores nothing.
Expected: not known for UC. On CIFAR-10, JPEG alone restores other unlearnable methods to 69 to 85 %
(APBench, arXiv:2308.03258).
Cost on Pets: 121.7 million image passes of victims, 0.2 of UC's generators. Your machine's time:
`ucjax plan --config=configs/beyond/defences.py --images=3680`. Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import MINIATURE, published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    c.protections = ("clean", "random", "cluster_random", "gratings", "uc")
    treatments = (
        *("grey", "jpeg10", "jpeg75", "bits2", "lowpass2", "median3", "blur2"),
        *("notch10", "clustermean10", "ortho56", "pair_leak10"),
    )
    recipes = ("rrc", "mixup", "cutmix", "cutout", "gauss", "at4", "at8", "at16")
    fractals: tuple[str, ...] = ("ueraser", "ueraser_max")
    if argument == MINIATURE:  # of the groups of 24 images; fractals are long programs
        treatments = (*treatments[:7], "notch3", "clustermean3", "ortho16", "pair_leak2")
        fractals = ()
    c.victims = ("resnet18", *(f"resnet18+{part}" for part in (*treatments, *recipes, *fractals)))
    return sized(c, argument)
