"""Your photos: protects a folder and measures the protection, offline.

    python -m ucjax.main --config=configs/folder.py --config.data.root=PHOTOS --workdir=out/photos

Data: class sub-folders, or one flat folder (then there are no victims: they need labels);
`train/` and `test/` are used if present, else a fifth is kept as the clean test set. Weights:
EfficientNet-Lite0, installed with ucjax.
Hardware and time: seen on 2 busy CPU cores for 3,068 photos: features 26 s, noise (4 epochs)
8 minutes, files 14 s an arm, a victim (10 epochs) 6 minutes.
Expected: unknown for your photos, which is why it is measured. A one-seed look at photographs of
clothing, with short training, showed no protection beyond the controls.
"""

from ml_collections import ConfigDict

from configs import pets


def get_config() -> ConfigDict:
    """Returns the experiment; `data.root` must be set."""
    c = pets.get_config()
    c.expected_time = "estimated for 3,000 photos on 2 CPU cores: 15 minutes, hours for victims"
    c.data.update(source="folder", name="", root="", short_side=146, crop=128)
    c.surrogate.update(name="efficientnet_lite0", path="", batch_size=64)
    # The pixels themselves: ten generators take a CPU hours at this size.
    c.noise.update(
        parametrisation="direct",
        epochs=5,
        batch_size=64,
        learning_rate=0.1,
        final_learning_rate=0.01,
        weight_decay=0.0,
    )
    c.protect.geometry = "native"
    c.victim.update(width=16, epochs=30, batch_size=128, short_side=146, crop=128)
    return c
