"""The whole program in minutes on a laptop, offline: synthetic textures, EfficientNet-Lite0.

    python -m ucjax.main --config=configs/quickstart.py --workdir=out/quickstart

Data: ten families of procedural textures (synthetic: made to exercise every stage, not to
stand for photographs). Weights: EfficientNet-Lite0, installed with ucjax.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config() -> ConfigDict:
    """Returns the offline default."""
    c = pets.get_config()
    c.expected_time = "about 5 minutes on 2 CPU cores"
    c.data.update(
        source="textures", name="", train_count=1000, test_count=500, short_side=72, crop=64
    )
    c.surrogate.update(name="efficientnet_lite0", path="", batch_size=128)
    c.noise.update(
        parametrisation="direct",
        epochs=10,
        batch_size=100,
        learning_rate=0.1,
        final_learning_rate=0.01,
        weight_decay=0.0,
    )
    c.victim.update(width=16, epochs=12, batch_size=100, short_side=72, crop=64, seeds=(0, 1, 2))
    return c
