"""The end of every comparison: its page, with pictures of the row that its verdict speaks of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ucjax.clusters.kmeans import Clusters
from ucjax.comparison import rows, verdict
from ucjax.comparison.ground import purity_of
from ucjax.comparison.run import Filled
from ucjax.protections import protector, table
from ucjax.protections.noise import Noise
from ucjax.protections.uc.fit import TRAINING
from ucjax.report import page, tables
from ucjax.report.page import Pictures
from ucjax.runtime import checkpoint, parallel

_PAIRS, _EXAMPLES = 8, 6


def finish(filled: Filled) -> str:
    """Writes `report.html` into the run's folder; returns the table and verdict as text."""
    table_, folder = filled.table, filled.ground.folder
    for row in filled.rows:
        _publish(row, filled)
    shown = pictures(filled)
    if parallel.is_main():
        page.write(table_, shown, folder)
    parallel.barrier("report")
    said = tables.said(table_, verdict.judge(table_))
    return f"{said}\nreport: {folder / 'report.html'}"


def _publish(row: rows.Row, filled: Filled) -> None:
    """Keeps a row's noise for other images in `protector/` of its folder."""
    if row.noise is None or row.folder is None or verdict.is_control(str(row.name)):
        return
    made = rows.protector_of(row.name, row.noise, row.noise_seed, filled.ground)
    folder = row.folder / "protector"
    if made is not None and parallel.is_main() and not (folder / protector.DESCRIPTION).exists():
        protector.save(made, folder)


def pictures(filled: Filled) -> Pictures | None:
    """Returns what the page shows; None if no row put one noise per cluster on the images."""
    row = _shown(filled)
    if row is None or row.noise is None or row.noise.clusters is None or row.folder is None:
        return None
    ground, noise = filled.ground, row.noise
    config, _ = table.resolve(row.name, ground.config)
    clusters, crop = ground.clusters(config, row.noise_seed), ground.config.data.crop
    before = ground.features(config)
    # Decoded so that their centre crops show what the cache showed the surrogate.
    side = ground.config.data.short_side if ground.native else crop
    written = ground.decode(rows.slug(row.name), row.items, side)
    after = ground.embed(written, config, row.folder / "features.safetensors")
    shown, examples = _sample(clusters, ground.config.seed)
    loss, moved = _curves(row.folder / TRAINING)
    return Pictures(
        row=row.label,
        clean=ground.splits.train.center_crops(crop, shown),
        protected=written.center_crops(crop, shown),
        clusters=clusters.assignment[shown],
        noise=_on_grey(noise, len(clusters.centers), crop),
        examples=np.stack([ground.splits.train.center_crops(crop, e) for e in examples]),
        before=before,
        after=after,
        assignment=clusters.assignment,
        purity=purity_of(clusters, ground.splits.train),
        epsilon_255=noise.epsilon_255,
        loss=loss,
        moved=moved,
    )


def _shown(filled: Filled) -> rows.Row | None:
    """Returns the row that the verdict speaks of, or the first that can be shown."""
    entries = filled.table.entries
    judged = verdict.lowest(filled.table, entries[0].column) if entries else None
    able = filter(_shows, filled.rows)
    return min(able, key=lambda row: judged is None or row.label != judged.label, default=None)


def _shows(row: rows.Row) -> bool:
    noise = row.noise
    return (
        noise is not None and noise.clusters is noise.row and not verdict.is_control(str(row.name))
    )


def _curves(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not path.exists():
        return (), ()
    saved = checkpoint.read_json(path)
    return tuple(saved["loss"]), tuple(saved["moved"])


def _on_grey(noise: Noise, count: int, crop: int) -> np.ndarray:
    grey = np.full((crop, crop, 3), 128, np.uint8)
    added = [noise.patterns.add(i, grey) for i in range(count)]
    return (np.stack(added).astype(np.float32) - 128) / 255


def _sample(clusters: Clusters, seed: int) -> tuple[list[int], list[list[int]]]:
    """Draws images: pairs of all, and examples of every cluster."""
    rng = np.random.default_rng(seed)
    n = len(clusters.assignment)
    members = [np.flatnonzero(clusters.assignment == i) for i in range(len(clusters.centers))]
    return (
        sorted(rng.choice(n, min(_PAIRS, n), replace=False).tolist()),
        [np.resize(rng.permutation(m), _EXAMPLES).tolist() for m in members],
    )
