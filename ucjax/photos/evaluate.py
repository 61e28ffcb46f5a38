"""Does the protection work on these photos? A comparison of an owner's originals and copies.

A share of the photos is held out. Victims learn from the protected copies of the others, from
their originals, and from copies with random noise; all are tested on the held-out originals.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax import config as settings
from ucjax import names
from ucjax.comparison import run
from ucjax.comparison.ground import Known
from ucjax.comparison.run import Filled
from ucjax.comparison.verdict import CONTROLS
from ucjax.data import folder as folders
from ucjax.data.images import printable
from ucjax.errors import StaleError, UserError
from ucjax.files import manifest, verification
from ucjax.files.picture import LOSSY
from ucjax.files.verification import Budget
from ucjax.names import Name
from ucjax.runtime import checkpoint, parallel
from ucjax.victims import table as victims
from ucjax.victims import together
from ucjax.victims.contract import Victim, VictimSpec
from ucjax.victims.step import State, compile_victim

FOLDER = "evaluation"
ROWS = ("clean", "random", "cluster_random")
COLUMNS = ("resnet18", "resnet18+jpeg75", "resnet18+grey:treat=both")
# Fewer epochs leave a victim so far from having learnt that nothing can be said.
_FEWEST_EPOCHS = 5


def evaluate(
    photos: Path,
    out: Path,
    config: ConfigDict,
    *,
    rows: Sequence[str] = ROWS,
    columns: Sequence[str] = COLUMNS,
    labels: str = "",
    minutes: float = 0.0,
    command: Sequence[str] = ("ucjax", "evaluate"),
) -> Filled:
    """Trains and tests victims; everything is kept in `out/evaluation`, where a rerun goes on.

    The controls are measured by the first victim only, the clean and the protected files by all.

    Args:
      photos: the originals.
      out: what `ucjax protect` wrote.
      config: of which `victim`, `seeds`, `data.test_fraction` and `seed` count; what the copies
        were made with is read from `out`.
      rows: controls beside the protected files.
      columns: victims; none measures only how early the noise is seen.
      labels: a label rule; "" for the sub-folders.
      minutes: shortens the training of all victims together to about this time; 0 does not.
      command: what was typed, for the record.

    Raises:
      UserError: bad input, in one line.
    """
    job = _job(photos, out)
    _verify(photos, out, job)
    config = _configured(config, photos, out, job, rows)
    config.victims = _labelled(columns, config, photos, out, labels)
    parsed = [names.parse(column, "column") for column in config.victims[:1]]
    first = [victims.resolve(name, config).name for name in parsed]

    def wanted(row: Name, victim: Victim) -> bool:
        return row.base in ("clean", "folder") or victim.name in first

    mesh = parallel.make_mesh()
    if minutes and columns:
        _shorten(config, len(manifest.read_manifest(out)), minutes, mesh, out)
    fill = partial(
        run.run,
        config.lock(),
        out / FOLDER,
        command=command,
        mesh=mesh,
        known=_known(out),
        wanted=wanted,
    )
    try:
        return fill()
    except StaleError:
        # Photos or settings changed since: cells are known by content, what else is here is not.
        (out / FOLDER / "config.json").unlink(missing_ok=True)
        shutil.rmtree(out / FOLDER / "protections", ignore_errors=True)
        return fill()


def _job(photos: Path, out: Path) -> dict[str, Any]:
    if not photos.is_dir():
        raise UserError(f"{photos} is not a folder: give the folder of the originals")
    summary = manifest.read_summary(out)
    if summary is None:
        raise UserError(f"{out} holds no finished protected files: run ucjax protect first")
    job = summary.get("job", {})
    if "protector_sha256" not in job:
        raise UserError(f"{out} was not written by ucjax protect")
    missing = [
        record["name"]
        for record in manifest.read_manifest(out)
        if not (photos / record["name"]).is_file()
    ]
    if missing:
        raise UserError(
            f"{len(missing)} originals are not in {photos}, first {missing[0]}: give the folder "
            "that was protected"
        )
    return job


def _verify(photos: Path, out: Path, job: dict[str, Any]) -> None:
    """Refuses copies that are not what was written, or not of these photos."""
    clean = verification.clean_files(photos, [r["name"] for r in manifest.read_manifest(out)])
    budget = Budget(job["epsilon_255"], job["norm"], job["format"] in LOSSY)
    found = verification.verify(out, clean, budget)
    if found.failures:
        raise UserError(
            f"{out}: {len(found.failures)} faults in {found.files} files, first "
            f"{printable(found.failures[0])}: see ucjax verify, then protect again"
        )


def _configured(
    config: ConfigDict, photos: Path, out: Path, job: dict[str, Any], rows: Sequence[str]
) -> ConfigDict:
    """Returns the settings with which the controls equal the copies in all but the noise."""
    found = config.copy_and_resolve_references()
    found.unlock()
    found.data.update(
        source="folder",
        root=str(photos),
        short_side=job["short_side"],
        crop=job["crop"],
        split_unlabelled=True,
        cache=str(out / FOLDER / "cache"),
    )
    found.files.update(geometry="native", format=job["format"])
    found.noise.update(epsilon_255=job["epsilon_255"], norm=job["norm"], grain=job.get("grain", 1))
    found.surrogate.update(
        name=job["surrogate"], path=settings.SURROGATES.get(job["surrogate"], "")
    )
    for row in rows:
        names.known(names.parse(row, "row").base, CONTROLS, "control")
    escaped = Name("folder", str(out), (), (("label", "protected"),))
    found.protections = (*dict.fromkeys(("clean", *rows)), str(escaped))
    return found


def _labelled(
    columns: Sequence[str], config: ConfigDict, photos: Path, out: Path, rule: str
) -> tuple[str, ...]:
    """Returns the columns with the label rule that was asked for.

    Raises:
      UserError: none was, and the photos have no class folders.
    """
    if not columns:
        return ()
    if not rule:
        found, classes = folders.labels([r["name"] for r in manifest.read_manifest(out)])
        if len(classes) > 1 and -1 not in found:
            return tuple(columns)
        raise UserError(
            f"{photos} has no folder for each class: sort the photos into some, or label them by "
            f"clusters of a surrogate other than the noise's ({config.surrogate.name}), such as "
            "--labels clusters-10-packaged_clip (weights for non-commercial research and education)"
        )
    parsed = [names.parse(column, "column") for column in columns]
    return tuple(
        str(name if "labels" in dict(name.keys) else name.with_key("labels", rule))
        for name in parsed
    )


def _known(out: Path) -> Known:
    """Returns the clusters by which the copies got their noise."""
    records = manifest.read_manifest(out)
    named = {record["name"]: int(record["cluster"]) for record in records}
    # Of a tree with train/ and test/, images to protect are named from train/ on.
    clusters = {name.removeprefix("train/"): cluster for name, cluster in named.items()} | named
    # Controls ask for the number of centres alone.
    return Known(np.zeros((max(clusters.values()) + 1, 1), np.float32), clusters)


def _shorten(config: ConfigDict, count: int, minutes: float, mesh: Mesh, out: Path) -> None:
    """Sets the epochs that the time allows, as measured by the first call."""
    columns = [victims.resolve(names.parse(c, "column"), config) for c in config.victims]
    runs = len(config.seeds) * (len(config.protections) + 2 * (len(columns) - 1))
    spec, seconds = columns[0].spec, 60 * minutes / runs
    train = round(count * (1 - config.data.test_fraction))
    question = json.loads(json.dumps({**asdict(spec), "seconds": seconds, "photos": train}))
    answer = out / FOLDER / "budget.json"
    if answer.exists() and (known := checkpoint.read_json(answer))["question"] == question:
        config.victim.epochs = known["epochs"]
        return
    rate = _images_per_second(spec, train, mesh)
    # Testing takes a third of the time of training: it needs no gradient.
    epochs = min(int(seconds * rate / (train + (count - train) / 3)), spec.epochs)
    if epochs < _FEWEST_EPOCHS:
        raise UserError(
            f"--minutes allows {epochs} epochs a victim at {rate:.0f} images/s, fewer than "
            f"{_FEWEST_EPOCHS}: allow more, or lower --seeds"
        )
    checkpoint.write_json(answer, {"question": question, "epochs": epochs})
    config.victim.epochs = epochs


def _images_per_second(spec: VictimSpec, train: int, mesh: Mesh) -> float:
    steps = spec.epochs * math.ceil(train / spec.batch_size)
    programs = compile_victim(spec, 10, steps, mesh)
    seed = parallel.replicate(np.uint32(0), mesh)
    pixels = np.zeros((spec.batch_size, spec.crop, spec.crop, 3), np.uint8)
    batch = parallel.shard((pixels, np.zeros(spec.batch_size, np.int32)), mesh)
    jax.block_until_ready(programs.step(programs.init(seed), *batch, seed))  # compiles
    timed = 5

    def train_some(state: State) -> None:
        for _ in range(timed):
            state, _ = jax.block_until_ready(programs.step(state, *batch, seed))

    states = [jax.block_until_ready(programs.init(seed)) for _ in range(together.at_once(mesh))]
    start = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(train_some, states))
    return len(states) * timed * spec.batch_size / (time.monotonic() - start)
