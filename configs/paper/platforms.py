"""Victims as a training service has them: pretrained, of unknown recipe.

    python -m ucjax.main --config=configs/paper/platforms.py[:DATA_SET|miniature]

The paper uploads its files to Azure Custom Vision and Baidu EasyDL. Their results cannot be had
here; stand-ins are EfficientNet-Lite0 fine-tuned from ImageNet weights and as a linear probe. For
the services themselves: `ucjax export OUT --to azure DEST` (or `paddle`) writes what is uploaded,
for protected and for clean files alike, and `ucjax compare CLEAN --import RESULTS.csv` takes the
accuracies back (docs/paper.md).
Expected: no verified number is known to us.
Cost on Pets: 0.9 million image passes of victims, 0.4 of UC's generators. Your machine's time:
`ucjax plan --config=configs/paper/platforms.py --images=3680`. Not run by us (docs/paper.md).
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
    c.victims = ("lite0", "lite0_probe")
    return sized(c, argument)
