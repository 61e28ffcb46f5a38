"""The whole program in minutes on a laptop, offline: synthetic textures, EfficientNet-Lite0.

    python -m ucjax.main --config=configs/quickstart.py --workdir=out/quickstart

Data: ten families of procedural textures, 800 images to protect and 500 clean test images of
64 px. They are synthetic, and made easy for the method: hazy, so that noise within the budget
matters beside them, and in families that the surrogate's clusters follow closely. The run shows
the program, not what to expect of photographs. Weights: EfficientNet-Lite0, installed with ucjax.
Hardware and time: 5 minutes on 2 slow CPU cores, nothing compiled before; 3 of them are victims.
Expected: clean 75.9 ± 6.0, random 68.1 ± 9.8, cluster_random 69.1 ± 4.4, uc 60.7 ± 9.4, gratings
30.8 ± 9.8 % clean test accuracy at the last epoch, mean ± std over 3 seeds.
"""

from ml_collections import ConfigDict

from ucjax import config


def get_config() -> ConfigDict:
    """Returns the offline default."""
    c = config.photos()
    c.expected_time = "5 minutes on 2 CPU cores"
    c.data.update(source="textures", train_count=800, test_count=500, short_side=64, crop=64)
    c.surrogate.batch_size = 128
    c.protections = ("clean", "random", "cluster_random", "uc", "gratings")
    c.files.geometry = "crop"
    # Victims see the files at three quarters of their size, which takes two thirds of the time, and
    # crop at random from a seventh more, as the published ones do.
    c.victim.update(epochs=12, learning_rate=0.04, short_side=55, crop=48)
    return c
