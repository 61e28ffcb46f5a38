"""The budget: how much noise it takes, in levels of 255; the paper has 16.

    python -m ucjax.main --config=configs/paper/epsilon.py[:DATA_SET|miniature]

Beside each budget its controls. Which budgets but 16 the paper has is not verified; these are ours.
Expected: no verified number is known to us but those of 16 (configs/paper/effectiveness.py).
Cost on Pets: 18.8 million image passes of victims, 0.8 of UC's generators. Your machine's time:
`ucjax plan --config=configs/paper/epsilon.py --images=3680`. Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    c.protections = (
        "clean",
        *(
            f"{row}:eps={eps}"
            for row in ("random", "cluster_random", "cluster_untrained", "uc")
            for eps in (4, 8, 16, 24)
        ),
    )
    return sized(c, argument)
