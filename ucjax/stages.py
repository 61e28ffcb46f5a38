"""The stages up to the noise: loaded from the run's folder if finished, else run there.

A stage is computed by all processes and written by process 0, atomically, its last file last.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ucjax import surrogates
from ucjax.clusters import kmeans
from ucjax.clusters.kmeans import Clusters
from ucjax.data import sources
from ucjax.data.images import ImageSet
from ucjax.data.sources import Splits
from ucjax.errors import UserError
from ucjax.job import Job, budget_bytes, cache_folder, in_turn
from ucjax.protections import protector
from ucjax.protections.protector import Protector
from ucjax.protections.uc import training as noise
from ucjax.runtime import checkpoint, parallel, workdir
from ucjax.runtime.progress import Progress, say
from ucjax.surrogates import Surrogate
from ucjax.surrogates.features import features


def load_sources(job: Job) -> Splits:
    """Decodes the images to protect and the clean test images, once, into the cache."""
    splits = load_splits(job, job.config.data.short_side)
    classes = len(splits.train.class_names)
    say(
        f"source: {len(splits.train)} images to protect, {len(splits.test)} clean test images, "
        + (f"{classes} classes" if classes else "no labels")
    )
    return splits


def load_splits(job: Job, short_side: int) -> Splits:
    """Loads the source at another short side (victims may use one of their own)."""
    data = job.config.data
    return in_turn(
        lambda: sources.load(
            source=data.source,
            name=data.name,
            root=data.root,
            short_side=short_side,
            test_fraction=data.test_fraction,
            seed=job.config.seed,
            cache_dir=cache_folder(job),
            train_count=data.train_count,
            test_count=data.test_count,
            say=say,
            progress=Progress,
        )
    )


def load_surrogate(job: Job) -> Surrogate:
    """Loads the frozen feature extractor."""
    spec = job.config.surrogate
    surrogate = surrogates.load(spec.name, path=spec.path, image_size=job.config.data.crop)
    say(f"surrogate: {surrogate.id} at {surrogate.image_size} px")
    return surrogate


def embed(image_set: ImageSet, surrogate: Surrogate, path: Path, job: Job) -> np.ndarray:
    """Returns the surrogate's features `[n, d]` of the images' centre crops.

    Raises:
      UserError: `path` holds the features of other images.
    """
    digest = fingerprint(image_set)
    if not parallel.agree(path.exists()):
        rows = features(
            surrogate,
            image_set,
            size=job.config.data.crop,
            mesh=job.mesh,
            batch_size=job.config.surrogate.batch_size,
            progress=job.progress,
        )
        if parallel.is_main():
            checkpoint.save_tree(path, {"features": rows, "images": digest})
        parallel.barrier("features")
    saved = checkpoint.load_arrays(path)
    if not np.array_equal(saved["images"], digest):
        raise UserError(
            f"the images are not those that {path} was made from ({len(saved['features'])} then, "
            f"{len(image_set)} now): use another --workdir, or delete {job.folder}"
        )
    return saved["features"]


def fingerprint(image_set: ImageSet) -> np.ndarray:
    """Returns 32 bytes that change with the names, labels and sizes of the images."""
    text = json.dumps([image_set.names, image_set.labels.tolist(), image_set.starts.tolist()])
    return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)


def cluster(rows: np.ndarray, published: ImageSet, job: Job) -> Clusters:
    """Clusters the features `[n, d]` of the images to protect (the paper's initialisation)."""
    spec, path = job.config.clusters, job.folder / "clusters" / "clusters.safetensors"
    if not parallel.agree(path.exists()):
        found = kmeans.fit(
            rows,
            spec.k,
            seed=job.config.seed,
            mesh=job.mesh,
            n_init=spec.n_init,
            max_iterations=spec.max_iterations,
            tolerance=spec.tolerance,
        )
        if parallel.is_main():
            checkpoint.save_tree(path, {k: np.asarray(v) for k, v in asdict(found).items()})
        parallel.barrier("clusters")
    saved = checkpoint.load_arrays(path)
    clusters = Clusters(
        saved["centers"],
        saved["assignment"],
        float(saved["inertia"]),
        int(saved["iterations"]),
    )
    sizes = np.bincount(clusters.assignment, minlength=spec.k)
    purity = purity_of(clusters, published)
    say(
        f"clusters: {spec.k} of {sizes.min()} to {sizes.max()} images"
        + ("" if purity is None else f", purity {purity:.2f}")
    )
    return clusters


def purity_of(clusters: Clusters, published: ImageSet) -> float | None:
    """Returns the clusters' purity against the labels, if there are any."""
    if (published.labels < 0).any():
        return None
    return kmeans.purity(clusters.assignment, published.labels)


def learn_noise(
    published: ImageSet, clusters: Clusters, surrogate: Surrogate, job: Job
) -> Protector:
    """Trains the noise and publishes it as a protector (arXiv:2301.01217)."""
    folder, data = job.folder / "noise", job.config.data
    if not parallel.agree((folder / "protector.json").exists()):
        trained = noise.train(
            published,
            clusters,
            surrogate,
            job.noise,
            size=data.crop,
            mesh=job.mesh,
            checkpoint_file=folder / "checkpoint.safetensors",
            metrics=job.metrics,
            budget_bytes=budget_bytes(job),
            progress=job.progress,
        )
        if parallel.is_main():
            curve = {
                "loss": trained.loss,
                "moved": trained.moved,
                "target": trained.target.tolist(),
            }
            checkpoint.write_json(folder / "training.json", curve)
            protector.save(make_protector(trained.noise, clusters, surrogate, job), folder)
            (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        parallel.barrier("noise")
    return protector.load(folder)


def make_protector(
    learnt: np.ndarray, clusters: Clusters, surrogate: Surrogate, job: Job
) -> Protector:
    """Puts everything that applying the noise to tomorrow's images needs into one value."""
    data = job.config.data
    return Protector(
        noise=learnt,
        centers=clusters.centers,
        surrogate_name=job.config.surrogate.name,
        surrogate_path=job.config.surrogate.path,
        surrogate_id=surrogate.id,
        surrogate_sha256=surrogate.sha256,
        mean=surrogate.preprocessing.mean,
        std=surrogate.preprocessing.std,
        epsilon_255=job.noise.epsilon_255,
        norm=job.noise.norm,
        grain=job.noise.grain,
        short_side=data.short_side,
        crop=data.crop,
        seed=job.config.seed,
        versions=workdir.versions(),
    )
