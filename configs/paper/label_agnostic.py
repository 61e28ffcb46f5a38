"""The title's claim: the exploiter's labels need not be known.

    python -m ucjax.main --config=configs/paper/label_agnostic.py[:DATA_SET|miniature]

The files are the same in all columns; the victims' labels are the classes, the classes joined to
fewer groups (at random, or by likeness in a surrogate that is not the noise's), and each class
split in two; on Pets also the species. Which groups the paper joined is not known to us: these
are ours, seeded by `config.seed`.
Expected: no verified number is known to us but those of the first column
(configs/paper/effectiveness.py).
Cost on Pets: 73 million image passes of victims, 0.4 of UC's generators. Your machine's time:
`ucjax plan --config=configs/paper/label_agnostic.py --images=3680`. Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import MINIATURE, published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    c.protections = (
        *("clean", "random", "cluster_random", "cluster_untrained"),
        *("uc", "uc:surrogate=clip_rn50"),
    )
    groups = (5, 10) if argument == MINIATURE else (5, 10, 15, 20, 25, 30)
    c.victims = (
        "resnet18",
        *(f"resnet18:labels=random-{n}" for n in groups),
        *(f"resnet18:labels=kmeans-{n}" for n in groups[:2]),
        "resnet18:labels=fine",
        *(("resnet18:labels=species",) if argument == "pets" else ()),
    )
    # The surrogate of these labels is EfficientNet-Lite0, so that of the noise is another.
    return sized(c, argument, surrogate="packaged_clip")
