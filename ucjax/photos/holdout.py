"""The photos of an evaluation: labelled, in two halves, and the files of every arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax import surrogates
from ucjax.clusters import kmeans
from ucjax.data import folder as folders
from ucjax.data import images
from ucjax.data.images import ImageSet, Item
from ucjax.errors import UserError
from ucjax.files import manifest as protected
from ucjax.files import protect as protection
from ucjax.protections import controls
from ucjax.runtime.progress import Progress, say
from ucjax.surrogates.features import features

FOLDER = "evaluation"


@dataclass(frozen=True)
class Place:
    """Where things are, and what was done there."""

    photos: Path  # the originals
    out: Path  # what `ucjax protect` wrote
    job: protected.Record  # how

    def decode(
        self, label: str, items: Sequence[Item], short_side: int, class_names: tuple[str, ...] = ()
    ) -> ImageSet:
        """Decodes pictures into the evaluation's own cache."""
        return images.build(
            items,
            short_side=short_side,
            cache_dir=self.out / FOLDER / "cache",
            label=label,
            class_names=class_names,
            say=say,
            progress=Progress,
        )


class Halves(NamedTuple):
    """The originals of all protected photos."""

    train: list[Item]
    test: list[Item]
    class_names: tuple[str, ...]
    labels_by: str  # "sub-folders", or the surrogate whose clusters they are


def find(photos: Path, out: Path) -> Place:
    """Checks the two folders.

    Raises:
      UserError: one of them is not what it should be.
    """
    if not photos.is_dir():
        raise UserError(f"{photos} is not a folder: give the folder of the originals")
    summary = protected.read_summary(out)
    if summary is None:
        raise UserError(f"{out} holds no finished protected files: run ucjax protect first")
    if "protector_sha256" not in summary.get("job", {}):
        raise UserError(f"{out} was not written by ucjax protect")
    return Place(photos, out, summary["job"])


def split(
    place: Place, config: ConfigDict, mesh: Mesh, *, labels_by: str, labels_path: str
) -> Halves:
    """Labels the protected photos and holds a share of them out.

    Raises:
      UserError: originals are missing, or there are no labels to be had.
    """
    names = [record["name"] for record in protected.read_manifest(place.out)]
    missing = [name for name in names if not (place.photos / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} originals are not in {place.photos}, first "
            f"{missing[0]}: give the folder that was protected"
        )
    labels, class_names = folders.labels(names)
    if not labels_by and len(class_names) > 1 and -1 not in labels:
        labels_by = "sub-folders"
    else:
        if not labels_by:
            labels_by = _other_than(place.job["surrogate"])
        if labels_by == place.job["surrogate"]:
            raise UserError(
                f"{labels_by} made the noise's own clusters, which as labels would flatter it: "
                "name another surrogate with --labels-by"
            )
        say(f"the labels are clusters of {labels_by} (another surrogate: --labels-by)")
        labels = _clusters(place, names, config, mesh, labels_by, labels_path)
        class_names = tuple(f"cluster {i}" for i in range(max(labels) + 1))
    held_out = folders.stratified(labels, config.data.test_fraction, config.seed)
    items = [
        images.file_item(place.photos / name, name, label)
        for name, label in zip(names, labels, strict=True)
    ]
    train, test = (
        [item for item, out in zip(items, held_out, strict=True) if out == half]
        for half in (False, True)
    )
    if not test:
        raise UserError(f"{len(names)} photos in {len(class_names)} classes leave none to test on")
    return Halves(train, test, class_names, labels_by)


def _other_than(surrogate: str) -> str:
    return "packaged_clip" if surrogate == "efficientnet_lite0" else "efficientnet_lite0"


def _clusters(
    place: Place, names: list[str], config: ConfigDict, mesh: Mesh, surrogate_name: str, path: str
) -> list[int]:
    """Returns the clusters of the originals in a surrogate's features, as labels."""
    crop, short_side = place.job["crop"], place.job["short_side"]
    surrogate = surrogates.load(surrogate_name, path=path, image_size=crop)
    items = [images.file_item(place.photos / name, name, -1) for name in names]
    rows = features(
        surrogate,
        place.decode("labels", items, short_side),
        size=crop,
        mesh=mesh,
        batch_size=config.surrogate.batch_size,
    )
    found = kmeans.fit(
        rows,
        min(config.clusters.k, len(names)),
        seed=config.seed,
        mesh=mesh,
        n_init=config.clusters.n_init,
        max_iterations=config.clusters.max_iterations,
        tolerance=config.clusters.tolerance,
    )
    return np.asarray(found.assignment).tolist()


def training_files(arm: str, place: Place, halves: Halves, seed: int) -> list[Item]:
    """Returns the training files of an arm; those with random noise are written first."""
    if arm == "clean":
        return halves.train
    folder = place.out
    if arm != "protected":
        folder = place.out / FOLDER / arm
        _write_random(arm, place, halves, seed, folder)
    outputs = {record["name"]: record["output"] for record in protected.read_manifest(folder)}
    return [
        images.file_item(folder / protected.IMAGES / output, output, item.label)
        for item, output in ((item, outputs[item.name]) for item in halves.train)
    ]


def _write_random(arm: str, place: Place, halves: Halves, seed: int, folder: Path) -> None:
    eps, crop = place.job["epsilon_255"], place.job["crop"]
    grain = place.job.get("grain", 1)  # folders of before it could be chosen do not say
    cluster_of = {r["name"]: r["cluster"] for r in protected.read_manifest(place.out)}
    clusters = np.array([cluster_of[item.name] for item in halves.train])
    fixed = controls.cluster_signs(seed, clusters.max() + 1, crop, eps, grain=grain)
    protection.protect_images(
        place.decode("originals", halves.train, place.job["short_side"], halves.class_names),
        root=place.photos,
        noise_of=lambda i: (
            controls.image_signs(seed, i, crop, eps, grain=grain)
            if arm == "random"
            else fixed[clusters[i]]
        ),
        epsilon_255=eps,
        norm=place.job["norm"],
        crop=crop,
        clusters=clusters,
        folder=folder,
        label=arm,
        progress=Progress,
    )
