"""More images of a larger set: whether ten noises still protect thousands of photos, at 224 px.

    python -m ucjax.main --config=configs/beyond/scale.py[:IMAGES|miniature]

Food-101 with so many of its 75,750 training images protected, a seeded sample (0: all). A sweep is
one run a number, merged by `ucjax table out/scale-2000 out/scale-8000`. With photos of your own:
`--config.data.source=folder --config.data.root=PHOTOS`.
Expected: not known.
Cost: 15.5 million image passes of victims, 0.8 of UC's generators. Your machine's time: `ucjax
plan --config=configs/beyond/scale.py --images=8000`. Not run by us (docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import MINIATURE, published_on, sized


def get_config(argument: str = "8000") -> ConfigDict:
    """Returns the experiment with a number of images, or its miniature.

    Raises:
      ValueError: no number.
    """
    c = published_on(MINIATURE, default="food")
    c.data.train_count = 0 if argument == MINIATURE else int(argument)
    c.protections = (
        *("clean", "random", "cluster_random", "cluster_untrained", "gratings"),
        *("uc", "uc:k=40"),
    )
    return sized(c, argument)
