"""A small OUT with hostile names, made without any network."""

import numpy as np

from ucjax.files.picture import PNG
from ucjax.files.protect import protect_files
from ucjax.protections import controls
from ucjax.protections.protector import Protector

SCRIPT = "<script>alert('&')</script>"
NAMES = (f"cats/a\x1b[31m{SCRIPT.replace('/', ':')}.jpg", "cats/b.jpg", "dogs/c.jpg", "dogs/d.png")


def publish(photos, out):
    """Protects what of `NAMES` is in `photos`, all with one noise."""
    noise = controls.cluster_signs(0, 1, 32, 16)
    made = Protector(
        noise=noise, centers=np.zeros((1, 4), np.float32), surrogate_name="x", surrogate_path="",
        surrogate_id="x", surrogate_sha256="x", mean=(0.5,) * 3, std=(0.5,) * 3, epsilon_255=16,
        norm="linf", grain=1, short_side=36, crop=32, seed=0, versions={},
    )  # fmt: skip
    names = [name for name in NAMES if (photos / name).exists()]
    return protect_files(
        photos,
        names,
        made,
        labels=[0] * len(names),
        class_names=("cats",),
        cluster_of=lambda crop: 0,
        protector_sha256="0" * 64,
        encoding=PNG,
        refused=lambda digest: "",
        folder=out,
        threads=1,
    )
