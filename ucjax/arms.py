"""The arms of the comparison: their files, and the victims trained on them.

All arms are written, decoded and measured the same way; only the noise differs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from ucjax.clusters.kmeans import Clusters
from ucjax.data import images
from ucjax.data.images import ImageSet
from ucjax.data.sources import Splits
from ucjax.errors import UserError
from ucjax.files import protect as protection
from ucjax.files import verification
from ucjax.files.protect import ProtectedSet
from ucjax.job import Job, budget_bytes, cache_folder, in_turn
from ucjax.protections import controls
from ucjax.protections.protector import Protector
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.progress import Progress, say
from ucjax.stages import embed, load_splits
from ucjax.surrogates import Surrogate
from ucjax.victims import together
from ucjax.victims import training as victims
from ucjax.victims.training import VictimResult


def write(
    arm: str, splits: Splits, clusters: Clusters, published: Protector, job: Job
) -> ProtectedSet:
    """Writes one arm's files: the protected images, or a control in the same geometry."""
    folder = folder_of(arm, job)
    if parallel.is_main():
        native = job.config.protect.geometry == "native"
        assert splits.root is not None or not native, "job.check wants a folder for native files"
        protection.protect_images(
            splits.train,
            root=splits.root if native else None,
            noise_of=noise_of(arm, clusters, published),
            clusters=clusters.assignment,
            epsilon_255=published.epsilon_255,
            norm=published.norm,
            crop=published.crop,
            folder=folder,
            label=arm,
            progress=Progress,
        )
    parallel.barrier(arm)
    return protection.load(folder)


def prove(written: ProtectedSet, splits: Splits, published: Protector, job: Job) -> None:
    """Checks the protected files against their sources, sharing no code with what wrote them.

    Raises:
      UserError: a file is missing, changed, or over the budget.
    """
    path = job.folder / "verification.json"
    if parallel.is_main() and not path.exists():
        if job.config.protect.geometry == "native":
            assert splits.root is not None, "job.check wants a folder for native files"
            clean = verification.clean_files(splits.root, splits.train.names)
        else:
            clean = verification.clean_crops(splits.train, published.crop)
        budget = verification.Budget(published.epsilon_255, published.norm)
        found = verification.verify(written.folder, clean, budget)
        if found.failures:
            raise UserError(
                f"{written.folder}: {len(found.failures)} of {found.files} files fail the check, "
                f"first {found.failures[0]}; delete the folder and run again"
            )
        checkpoint.write_json(path, asdict(found))
        say(
            f"verified: {found.files} protected files read back, no pixel changed by more than "
            f"{found.max_delta_255} of 255 (budget {published.epsilon_255}, {published.norm})"
        )
    parallel.barrier("verified")


def folder_of(arm: str, job: Job) -> Path:
    """The published files are named as such; controls are kept apart from them."""
    return job.folder / ("protected" if arm == "protected" else f"controls/{arm}")


def noise_of(arm: str, clusters: Clusters, published: Protector) -> Callable[[int], np.ndarray]:
    """Returns the noise `[s, s, 3]` of an image, by its index, in this arm."""
    shape = published.noise.shape[1:]
    seed, eps, grain = published.seed, published.epsilon_255, published.grain
    if arm == "clean":
        return lambda index: np.zeros(shape, np.float32)
    if arm == "random":
        return lambda index: controls.image_signs(seed, index, shape[0], eps, grain=grain)
    per_cluster = published.noise
    if arm == "cluster_random":
        count = len(published.noise)
        per_cluster = controls.cluster_signs(seed, count, shape[0], eps, grain=grain)
    return lambda index: per_cluster[clusters.assignment[index]]


def embed_files(arm: str, written: ProtectedSet, surrogate: Surrogate, job: Job) -> np.ndarray:
    """Returns the surrogate's features `[n, d]` of an arm's decoded files."""
    decoded = decode_for_surrogate(arm, written, job)
    return embed(decoded, surrogate, written.folder / "features.safetensors", job)


def decode_for_surrogate(arm: str, written: ProtectedSet, job: Job) -> ImageSet:
    """Decodes files so that their centre crops show what the cache showed the surrogate."""
    data = job.config.data
    native = job.config.protect.geometry == "native"
    return decode(arm, written, data.short_side if native else data.crop, job)


def decode(arm: str, written: ProtectedSet, short_side: int, job: Job) -> ImageSet:
    """Decodes the files of an arm, as whoever downloads them would."""
    return in_turn(
        lambda: images.build(
            protection.items_of(written.folder),
            short_side=short_side,
            cache_dir=cache_folder(job),
            label=arm,
            class_names=written.class_names,
            say=say,
            progress=Progress,
        )
    )


def train_victims(
    sets: dict[str, ProtectedSet], splits: Splits, job: Job
) -> dict[str, dict[int, VictimResult]]:
    """Trains a victim per arm and seed on the decoded files; returns results by arm and seed.

    Seeds come first, so that an early look at a long run compares all arms.
    """
    results: dict[str, dict[int, VictimResult]] = {arm: {} for arm in job.config.victim.arms}
    if (splits.train.labels < 0).any() or not len(splits.test):
        say("victims: none, since the images have no labels or none are kept for testing")
        return results
    side = job.victim.short_side
    same = side == job.config.data.short_side
    test = splits.test if same else load_splits(job, side).test
    trainings: dict[str, together.Training] = {}
    paths = {
        (arm, seed): job.folder / "victims" / f"{arm}-seed{seed}.json"
        for seed in job.config.victim.seeds
        for arm in results
    }
    for (arm, seed), path in paths.items():
        if not parallel.agree(path.exists()):
            label = f"{arm} seed {seed}"
            train = decode(arm, sets[arm], side, job)
            trainings[label] = partial(_train_victim, train, test, job, seed, label, path)
    together.run(trainings, job.mesh)
    for (arm, seed), path in paths.items():
        results[arm][seed] = victims.read_result(path)
    return results


def _train_victim(
    train: ImageSet, test: ImageSet, job: Job, seed: int, label: str, path: Path,
    progress: Callable[..., Progress],
) -> None:  # fmt: skip
    unfinished = path.with_suffix(".safetensors")
    result = victims.train(
        train,
        test,
        job.victim,
        seed=seed,
        mesh=job.mesh,
        checkpoint=unfinished,
        metrics=job.metrics,
        label=label,
        budget_bytes=budget_bytes(job),
        progress=progress,
    )
    if parallel.is_main():
        checkpoint.write_json(path, asdict(result))
        unfinished.unlink(missing_ok=True)
    parallel.barrier("victim")
