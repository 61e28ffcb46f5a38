"""Which surrogate draws the clusters and trains the noise.

    python -m ucjax.main --config=configs/paper/surrogates.py[:DATA_SET|miniature]

Rows: UC with the paper's two surrogates, with CLIP ViT-B/32, and with both of the paper's at once;
beside each a fixed random pattern for that surrogate's own clusters, since clusters alone may
protect.
Expected: what configs/paper/effectiveness.py says of Pets and Cars; of the others no verified
number is known to us.
Cost on Pets: 12.2 million image passes of victims, 0.8 of UC's generators. Your machine's time:
`ucjax plan --config=configs/paper/surrogates.py --images=3680`. Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    surrogates = ("rn50", "clip_rn50", "clip", "rn50+clip_rn50")
    c.protections = (
        *("clean_original", "clean", "random"),
        *(f"cluster_random:surrogate={name}" for name in surrogates),
        *(f"uc:surrogate={name}" for name in surrogates),
    )
    return sized(c, argument)
