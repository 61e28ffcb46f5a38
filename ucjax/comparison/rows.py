"""The files of a row: made by a protection and written like every other row's, or found."""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from ucjax.comparison import foreign
from ucjax.comparison.ground import Ground
from ucjax.data.images import Item, file_item
from ucjax.errors import StaleError, UserError
from ucjax.files import manifest, protect, verification
from ucjax.files.picture import LOSSY, Encoding
from ucjax.names import Name
from ucjax.protections import protector, table
from ucjax.protections.contract import Given
from ucjax.protections.noise import Noise
from ucjax.protections.protector import Protector
from ucjax.runtime import checkpoint, parallel, workdir
from ucjax.runtime.progress import say

FILES, PROTECTOR = "files", "protector"


@dataclass(frozen=True)
class Facts:
    """What is known of a row's files before any victim sees them, measured on the decoded files.

    Attributes:
      files: their number.
      labels: whose labels the protection was given.
      epsilon_255: the budget they were held to, in levels; None where nobody told.
      max_delta_255: largest change of a pixel, in levels.
      mean_abs_delta_255: mean change of a pixel, in levels.
      psnr_median: dB over the files; infinite for unchanged files.
      ssim_median: over the files.
      seconds: to make the noise and to write the files; None for files that were found.
      image_passes: how often an image went through a network to make the noise.
    """

    files: int
    labels: str
    epsilon_255: int | None
    max_delta_255: int
    mean_abs_delta_255: float
    psnr_median: float
    ssim_median: float
    seconds: float | None
    image_passes: int


@dataclass(frozen=True)
class Row:
    """A row of the table, with one noise seed.

    Attributes:
      name: as asked for.
      noise_seed: of what was drawn for it.
      items: its files, in the order of the images to protect.
      facts: what was measured on them.
      noise: what was added, None for files that were found.
      folder: where it lies; None for files that were found.
    """

    name: Name
    noise_seed: int
    items: list[Item]
    facts: Facts
    noise: Noise | None = None
    folder: Path | None = None

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return label_of(self.name)


def label_of(name: Name) -> str:
    """Returns what a row is called in tables: the label of a folder, or the row itself."""
    return dict(name.keys).get("label") or str(name)


def make(name: Name, noise_seed: int, ground: Ground) -> Row:
    """Returns the files of a row, which are made unless they are there already.

    Raises:
      UserError: bad input, in one line.
    """
    entry = table.find(name)
    if name.base == "folder":
        return _found(name, Path(name.value), noise_seed, ground)
    if entry.fit is None:
        return _originals(name, noise_seed, ground)
    _, options = table.resolve(name, ground.config)
    folder = ground.folder / "protections" / f"{slug(name)}-seed{noise_seed}"
    start = time.monotonic()
    noise = fit(name, noise_seed, ground, folder)
    written = _write(noise, folder, ground, str(name))
    seconds = time.monotonic() - start
    if parallel.is_main():
        _prove(written, noise, folder, ground)
        if not (folder / "made.json").exists():
            checkpoint.write_json(folder / "made.json", {"seconds": seconds})
    parallel.barrier("row")
    facts = Facts(
        files=written.count,
        labels=str(options.get("labels", "none")),
        epsilon_255=noise.epsilon_255,
        max_delta_255=written.max_delta_255,
        mean_abs_delta_255=written.mean_abs_delta_over_eps * noise.epsilon_255,
        psnr_median=written.psnr_median,
        ssim_median=written.ssim_median,
        seconds=checkpoint.read_json(folder / "made.json")["seconds"],
        image_passes=noise.image_passes,
    )
    return Row(name, noise_seed, manifest.items_of(folder / FILES), facts, noise, folder)


def fit(name: Name, noise_seed: int, ground: Ground, folder: Path) -> Noise:
    """Returns a row's noise, made unless `folder` holds it already.

    Raises:
      UserError: bad input, in one line.
    """
    entry = table.find(name)
    assert entry.fit is not None, "rows that are files already have no noise"
    config, options = table.resolve(name, ground.config)
    _claim(folder, config, options, ground)
    return entry.fit(
        Given(
            images=ground.splits.train,
            config=config,
            options=options,
            seed=noise_seed,
            clusters=lambda: ground.clusters(config, noise_seed),
            surrogate=lambda: ground.surrogate(config),
            folder=folder,
            mesh=ground.mesh,
            metrics=ground.metrics,
            progress=ground.progress,
            budget_bytes=ground.budget_bytes,
        )
    )


def _claim(folder: Path, config: ConfigDict, options: dict[str, Any], ground: Ground) -> None:
    """Refuses a folder that was made from other images or settings than these.

    Raises:
      StaleError: it was.
    """
    path = folder / "given.json"
    asked = {
        "images_sha256": ground.images_sha256,
        "options": options,
        **{key: workdir.plain(config[key]) for key in ("surrogate", "clusters", "noise", "files")},
    }
    asked = json.loads(json.dumps(asked))
    if parallel.agree(path.exists()):
        before = checkpoint.read_json(path)
        if different := [key for key in asked if before.get(key) != asked[key]]:
            what = "images" if different[0] == "images_sha256" else f"config.{different[0]}"
            raise StaleError(
                f"{folder} was made from other {what} than now: delete it, or use another --workdir"
            )
    elif parallel.is_main():
        checkpoint.write_json(path, asked)
    parallel.barrier("claimed")


def slug(name: Name | str) -> str:
    """Returns a row as the name of a folder: "uc:k=20" as "uc_k=20"."""
    return re.sub(r"[^\w.=+-]", "_", str(name))


def protector_of(name: Name, noise: Noise, noise_seed: int, ground: Ground) -> Protector | None:
    """Returns a row's noise for other images, None if it is not one noise per cluster."""
    if noise.clusters is not noise.row:
        return None
    config, options = table.resolve(name, ground.config)
    rows, train = ground.features(config), ground.splits.train
    folders: tuple[str, ...] = ()
    if options.get("labels") == "folders":
        folders = tuple(train.class_names[label] for label in np.unique(train.labels))
    members = [noise.row == cluster for cluster in range(int(noise.row.max()) + 1)]
    return protector.of_noise(
        noise,
        centers=np.stack([rows[own].mean(axis=0) for own in members]),
        surrogate=ground.surrogate(config),
        config=config,
        seed=noise_seed,
        versions=workdir.versions(),
        folders=folders,
    )


def _write(noise: Noise, folder: Path, ground: Ground, label: str) -> manifest.ProtectedSet:
    splits, config = ground.splits, ground.config
    if parallel.is_main():
        protect.protect_images(
            splits.train,
            root=splits.root if ground.native else None,
            noise=noise,
            crop=config.data.crop,
            folder=folder / FILES,
            label=label,
            encoding=Encoding(config.files.format),
            progress=ground.progress,
        )
    parallel.barrier("written")
    return manifest.load(folder / FILES)


def _prove(written: manifest.ProtectedSet, noise: Noise, folder: Path, ground: Ground) -> None:
    """Checks the files against their sources, sharing no code with what wrote them."""
    path, splits = folder / "verification.json", ground.splits
    if not noise.epsilon_255 or path.exists():
        return
    if ground.native:
        assert splits.root is not None, "the spec wants a folder for native files"
        clean = verification.clean_files(splits.root, splits.train.names)
    else:
        clean = verification.clean_crops(splits.train, ground.config.data.crop)
    lossy = ground.config.files.format in LOSSY
    budget = verification.Budget(noise.epsilon_255, noise.norm, lossy)
    found = verification.verify(written.folder, clean, budget)
    if found.failures:
        raise UserError(
            f"{written.folder}: {len(found.failures)} of {found.files} files fail the check, "
            f"first {found.failures[0]}; delete {folder} and run again"
        )
    checkpoint.write_json(path, asdict(found))
    kept = "which JPEG does not keep" if lossy else noise.norm
    say(
        f"verified: {found.files} files read back, no pixel changed by more than "
        f"{found.max_delta_255} of 255 (budget {noise.epsilon_255}, {kept})"
    )


def _originals(name: Name, noise_seed: int, ground: Ground) -> Row:
    items = list(ground.splits.train_items)
    unchanged = Facts(len(items), "none", 0, 0, 0.0, math.inf, 1.0, None, 0)
    return Row(name, noise_seed, items, unchanged)


def _found(name: Name, folder: Path, noise_seed: int, ground: Ground) -> Row:
    matched = foreign.match(folder, ground.splits.train.names)
    measured = foreign.measure(matched, ground.splits, label_of(name), ground)
    labels = ground.splits.train.labels.tolist()
    items = [
        file_item(matched.paths[name], name, label)
        for name, label in zip(ground.splits.train.names, labels, strict=True)
    ]
    facts = Facts(
        files=len(items),
        labels="unknown",
        epsilon_255=None,
        max_delta_255=measured.max_delta_255,
        mean_abs_delta_255=measured.mean_abs_delta_255,
        psnr_median=measured.psnr_median,
        ssim_median=measured.ssim_median,
        seconds=None,
        image_passes=0,
    )
    return Row(name, noise_seed, items, facts)
