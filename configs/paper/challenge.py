"""The label-agnostic challenge (section 3.2): baselines with true and with guessed labels.

    python -m ucjax.main --config=configs/paper/challenge.py[:DATA_SET|miniature]

Each baseline is made twice: with the classes that its victims will train on, and with what an
ImageNet classifier calls the images. `em_frozen` knows the latter only; whether the paper's EMinN
and EMaxN are the two-level `em` and `emax` or these is not known to us. 10,000 of CIFAR-10's
images, since per-image noise of all takes 7.5 GB a row at 224 px; `--config.data.train_count=0`
takes all. The paper's picture of the victims' features is not drawn.
Expected: no verified number is known to us.
Cost: 41.5 million image passes of victims, 0.5 of UC's generators; baselines are not counted. Your
machine's time: `ucjax plan --config=configs/paper/challenge.py --images=10000`. Not run by us
(docs/paper.md).
"""

from ml_collections import ConfigDict

from configs import published_on, sized


def get_config(argument: str = "cifar10") -> ConfigDict:
    """Returns the experiment on a data set of `configs.DATA_SETS`, or its miniature."""
    c = published_on(argument, default="cifar10")
    c.data.train_count = 10_000
    baselines = ("lsp", "em", "emax", "tap")
    c.protections = (
        *("clean_original", "clean", "random", "cluster_random", "uc"),
        *(f"{name}:labels={source}" for name in baselines for source in ("true", "surrogate")),
        *("em_frozen", "em_frozen:direction=up"),
    )
    return sized(c, argument)
