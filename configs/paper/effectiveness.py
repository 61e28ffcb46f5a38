"""The paper's main table: how far victims of every kind fall, on every data set.

    python -m ucjax.main --config=configs/paper/effectiveness.py[:DATA_SET|miniature]

Rows: UC (ImageNet ResNet-50 as surrogate) and UC-CLIP (CLIP ResNet-50) as the authors' code trains
them, the paper's five baselines, which see what the surrogate's ImageNet head calls each image, and
the controls that the paper lacks. Columns: the paper's three supervised victims from scratch; its
unsupervised one is in configs/paper/unsupervised.py.
Expected: for ResNet-18 on Pets an independent rerun of the authors' code (arXiv:2412.21061) found
clean 49.56 ± 0.81, UC 20.91 ± 1.17, UC-CLIP 24.07 ± 4.92 % clean test accuracy; on Cars
43.25 ± 1.71, 25.91 ± 4.58, 10.93 ± 2.78. Their clean victims are those of `clean_original`. For the
other sets, victims and rows no verified number is known to us.
Cost on Pets: 39.8 million image passes of victims, 0.4 of UC's generators; baselines are not
counted. Your machine's time: `ucjax plan --config=configs/paper/effectiveness.py --images=3680`.
Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    c.protections = (
        *("clean_original", "clean", "random", "cluster_random", "cluster_untrained"),
        *("uc", "uc:surrogate=clip_rn50"),
        *(f"{name}:labels=surrogate" for name in ("lsp", "em", "emax", "tap", "deepconfuse")),
    )
    c.victims = ("resnet18", "regnetx_16gf", "efficientnet_b1")
    return sized(c, argument)
