"""Gratings as owners get them: named strengths, and the same files wherever they are made."""

import hashlib

import jax
import numpy as np
import pytest
import wavy

from ucjax import config, names
from ucjax.cli import settings as cli
from ucjax.clusters import kmeans
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.files import fidelity
from ucjax.protections import gratings, table
from ucjax.protections.contract import Given
from ucjax.protections.noise import on_whole
from ucjax.protections.waves import Gratings
from ucjax.runtime import parallel
from ucjax.runtime.progress import MetricsFile
from ucjax.surrogates import Preprocessing, Surrogate
from ucjax.surrogates.features import features


def test_strengths_are_rows_and_rise():
    clean = np.asarray(wavy.photo(1, 300, 200))
    seen = []
    for row in gratings.STRENGTHS.values():
        settings, options = table.resolve(names.parse(row, "row"), config.photos())
        carriers = gratings.draw(0, 3, options["bands"], options["color"])
        pattern = Gratings(carriers, settings.noise.epsilon_255, 146, options["wave"])
        seen.append(fidelity.compare(clean, on_whole(pattern, 0, clean)))
    assert list(gratings.STRENGTHS) == ["subtle", "balanced", "strong"]
    assert [x.delta_e_mean for x in seen] == sorted(x.delta_e_mean for x in seen)
    assert seen[1].ssim_luma > 0.99


def test_clusters_for_waves_are_found_in_larger_pictures_unless_asked_otherwise():
    for row in (config.OWNERS_ROW, *gratings.STRENGTHS.values()):
        data = config.photos(500, row).data
        assert (data.short_side, data.crop) == (224, 224)
    assert config.photos(500, "uc").to_dict() == config.photos(500).to_dict()
    asked = cli.load(None, ["--config.data.crop=100"], photos=500, row=config.OWNERS_ROW)
    assert (asked.data.short_side, asked.data.crop) == (224, 100)
    with pytest.raises(UserError, match="row"):
        config.photos(500, "gratings:k")


MADE = "ffef64b8ec58fba81a7d032af7ae0cf69175aab31678bfab9a07d579ae1269cb"
COUNT, SIDE, P = 13, 32, 3


def test_what_is_made_does_not_depend_on_devices(tmp_path):
    """Features, clusters, carriers and pixels, on 1, 2 and 4 devices, against a pinned hash."""
    rng = np.random.default_rng(1)
    images = ImageSet(
        rows=rng.integers(0, 256, (COUNT * 40, SIDE, 3), dtype=np.uint8),
        starts=np.arange(COUNT + 1) * 40,
        wide=rng.random(COUNT) < 0.5,
        labels=np.full(COUNT, -1, np.int32),
        names=tuple(f"{i}.png" for i in range(COUNT)),
        class_names=(),
    )
    weights = rng.normal(size=(SIDE * SIDE * 3, 5)).astype(np.float32)

    def embed(weights, images):
        return images.reshape(len(images), -1) @ weights

    surrogate = Surrogate(embed, weights, SIDE, Preprocessing((0, 0, 0), (1, 1, 1)), "s", "none")
    shared = {"data__short_side": SIDE, "data__crop": SIDE, "clusters__k": P}
    settings, options = table.resolve(
        names.parse("gratings:bands=1/9,1/5", "row"),
        config.with_settings(config.photos(), shared),
    )
    digests = set()
    for devices in (1, 2, 4):
        mesh = parallel.make_mesh(jax.devices()[:devices])
        rows = features(surrogate, images, size=SIDE, mesh=mesh, batch_size=8)
        found = kmeans.fit(rows, P, seed=3, mesh=mesh, centers=rows[:P])
        given = Given(
            images=images, config=settings, options=options, seed=3,
            clusters=lambda found=found: found, surrogate=lambda: surrogate, folder=tmp_path,
            mesh=mesh, metrics=MetricsFile(tmp_path / "metrics.jsonl"),
        )  # fmt: skip
        noise = gratings.fit(given)
        made = [noise.add(i, images.image(i), whole=True).tobytes() for i in range(COUNT)]
        digests.add(hashlib.sha256(b"".join([*made, noise.row.tobytes()])).hexdigest())
    (digest,) = digests
    assert digest == MADE
