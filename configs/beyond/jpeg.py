"""A ladder of JPEG qualities, as the web encodes pictures again.

    python -m ucjax.main --config=configs/beyond/jpeg.py[:DATA_SET|miniature]

Training pictures are encoded at each quality, with 4:2:0 chroma; every column has its own clean
victims.
Expected: not known for UC.
Cost on Pets: 39.8 million image passes of victims, 0.2 of UC's generators; baselines are not
counted. Your machine's time: `ucjax plan --config=configs/beyond/jpeg.py --images=3680`. Not run
by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import published_on, sized


def get_config(argument: str = "pets") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument)
    c.protections = ("clean", "random", "cluster_random", "gratings", "uc", "lsp:labels=cluster")
    c.victims = ("resnet18", *(f"resnet18+jpeg{quality}" for quality in (90, 75, 50, 30, 10)))
    return sized(c, argument)
