"""A run from images to the report: the stages in the order of the paper.

Only this module, `job`, `stages` and `arms` read the config; it alone knows all stages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax import arms, job, stages
from ucjax.clusters import kmeans
from ucjax.clusters.kmeans import Clusters
from ucjax.data.sources import Splits
from ucjax.files.protect import ProtectedSet
from ucjax.report import page, tables
from ucjax.report.page import Pictures
from ucjax.report.summary import Arm, Summary
from ucjax.runtime import checkpoint, parallel, workdir
from ucjax.runtime.progress import say
from ucjax.victims.training import VictimResult


def run(config: ConfigDict, folder: Path, *, command: list[str], mesh: Mesh | None = None) -> Path:
    """Runs every stage that is not finished in `folder`; returns the path of the report.

    Raises:
      UserError: bad input, in one line.
    """
    mesh = mesh or parallel.make_mesh()
    this = job.check(config, folder, mesh)
    workdir.claim(folder, config)
    environment = workdir.record_environment(folder, command, mesh)
    say(f"{workdir.pretty(config)}\n{folder} on {environment['devices']}: {config.expected_time}")

    splits = stages.load_sources(this)
    surrogate = stages.load_surrogate(this)
    before = stages.embed(splits.train, surrogate, folder / "features.safetensors", this)
    clusters = stages.cluster(before, splits.train, this)
    protector = stages.learn_noise(splits.train, clusters, surrogate, this)
    # The protected files are the product, whatever victims are asked for.
    names = dict.fromkeys((*config.victim.arms, "protected"))
    sets = {arm: arms.write(arm, splits, clusters, protector, this) for arm in names}
    arms.prove(sets["protected"], splits, protector, this)
    after = {arm: arms.embed_files(arm, sets[arm], surrogate, this) for arm in sets}
    results = arms.train_victims(sets, splits, this)

    summary = summarize(config, environment, splits, clusters, sets, after, results, folder)
    written = arms.decode_for_surrogate("protected", sets["protected"], this)
    if parallel.is_main():
        crop = config.data.crop
        shown, examples = sample(clusters, seed=config.seed)
        pictures = Pictures(
            clean=splits.train.center_crops(crop, shown),
            protected=written.center_crops(crop, shown),
            clusters=clusters.assignment[shown],
            noise=protector.noise,
            examples=np.stack([splits.train.center_crops(crop, row) for row in examples]),
            before=before,
            after=after["protected"],
            assignment=clusters.assignment,
            epsilon_255=protector.epsilon_255,
        )
        page.write(summary, pictures, folder)
    parallel.barrier("report")
    say(f"{tables.text(summary)}\nreport: {folder / 'report.html'}")
    return folder / "report.html"


def summarize(
    config: ConfigDict,
    environment: dict[str, Any],
    splits: Splits,
    clusters: Clusters,
    sets: dict[str, ProtectedSet],
    after: dict[str, np.ndarray],
    results: dict[str, dict[int, VictimResult]],
    folder: Path,
) -> Summary:
    """Puts the numbers of all stages together; `after` holds the features of an arm's files."""
    training = checkpoint.read_json(folder / "noise" / "training.json")
    goal = np.asarray(training["target"])[clusters.assignment]
    return Summary(
        config=workdir.plain(config),
        environment=environment,
        train_count=len(splits.train),
        test_count=len(splits.test),
        class_names=splits.train.class_names,
        cluster_sizes=tuple(np.bincount(clusters.assignment).tolist()),
        purity=stages.purity_of(clusters, splits.train),
        noise_loss=tuple(training["loss"]),
        noise_moved=tuple(training["moved"]),
        arms=tuple(
            make_arm(arm, sets[arm], kmeans.assign(after[arm], clusters.centers) == goal, results)
            for arm in sets
        ),
    )


def make_arm(
    name: str, written: ProtectedSet, moved: np.ndarray, results: dict[str, dict[int, VictimResult]]
) -> Arm:
    """Puts the measurements of an arm's files and victims together; `moved` is bool `[n]`."""
    return Arm(
        name=name,
        max_delta_255=written.max_delta_255,
        mean_abs_delta_over_eps=written.mean_abs_delta_over_eps,
        psnr_median=written.psnr_median,
        ssim_median=written.ssim_median,
        moved=float(np.mean(moved)),
        victims=results.get(name, {}),
    )


def sample(
    clusters: Clusters, *, seed: int, pairs: int = 8, examples: int = 6
) -> tuple[list[int], list[list[int]]]:
    """Draws images for the report: `pairs` of all, and `examples` of every cluster."""
    rng = np.random.default_rng(seed)
    n = len(clusters.assignment)
    members = [np.flatnonzero(clusters.assignment == i) for i in range(len(clusters.centers))]
    return (
        sorted(rng.choice(n, min(pairs, n), replace=False).tolist()),
        [np.resize(rng.permutation(m), examples).tolist() for m in members],
    )
