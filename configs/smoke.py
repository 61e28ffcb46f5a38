"""Every stage in seconds, with results that mean nothing: for tests and for a first look at a pod.

    python -m ucjax.main --config=configs/smoke.py --workdir=out/smoke

Data and weights as in configs/quickstart.py, much smaller. Nearly all of its time is
compilation.
"""

from ml_collections import ConfigDict

from configs import quickstart


def get_config() -> ConfigDict:
    """Returns the quickstart, shrunk."""
    c = quickstart.get_config()
    c.expected_time = "short, mostly compilation"
    c.data.update(train_count=24, test_count=12, short_side=36, crop=32)
    c.surrogate.batch_size = 8
    c.clusters.update(k=3, n_init=2)
    c.noise.update(epochs=2, batch_size=8)
    c.victim.update(epochs=2, batch_size=8, width=4, short_side=36, crop=32)
    c.protections, c.seeds = ("clean", "uc"), (0,)
    return c
