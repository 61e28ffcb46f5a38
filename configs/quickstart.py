"""The whole program in minutes on a laptop, offline: synthetic textures, EfficientNet-Lite0.

    python -m ucjax.main --config=configs/quickstart.py --workdir=out/quickstart

Data: ten families of procedural textures, 1,000 images to protect and 500 clean test images of
64 px. They are synthetic, and made easy for the method: hazy, so that noise within the budget
matters beside them, and in families that the surrogate's clusters follow closely. The run shows
the program, not what to expect of photographs. Weights: EfficientNet-Lite0, installed with ucjax.
Hardware and time: 8 min 53 s on 2 CPU cores, nothing compiled before; 6 minutes of it are victims.
Expected: clean 92.2 ± 2.6, random 85.9 ± 4.4, cluster_random 86.6 ± 2.1, uc 79.4 ± 3.3, gratings
36.9 ± 15.5 % clean test accuracy at the last epoch, mean ± std over 3 seeds.
"""

from ml_collections import ConfigDict

from ucjax import config


def get_config() -> ConfigDict:
    """Returns the offline default."""
    c = config.photos()
    c.expected_time = "9 minutes on 2 CPU cores"
    c.data.update(source="textures", train_count=1000, test_count=500, short_side=64, crop=64)
    c.surrogate.batch_size = 128
    # Waves of 2.7, 4 and 6.4 pixels: the default's are for photographs of 256 px and more.
    c.protections = ("clean", "random", "cluster_random", "uc", "gratings:bands=1/24,1/16,1/10")
    c.files.geometry = "crop"
    # As the published victims do: files are enlarged by a seventh and cropped at random.
    c.victim.update(epochs=15, learning_rate=0.04, short_side=73, crop=64)
    return c
