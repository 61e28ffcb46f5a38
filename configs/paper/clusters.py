"""The number of clusters, p in the paper, which has 10.

    python -m ucjax.main --config=configs/paper/clusters.py[:DATA_SET|miniature]

Beside each number its controls: a fixed random pattern per cluster, and the generators untrained.
Which numbers but 10 the paper has is not verified; these are ours.
Expected: no verified number is known to us but those of p = 10 (configs/paper/effectiveness.py).
Cost on Pets: 15.5 million image passes of victims, 0.8 of UC's generators. Your machine's time:
`ucjax plan --config=configs/paper/clusters.py --images=3680`. Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    c.protections = (
        *("clean", "random"),
        *(
            f"{row}:k={k}"
            for row in ("cluster_random", "cluster_untrained", "uc")
            for k in (5, 10, 20, 40)
        ),
    )
    return sized(c, argument)
