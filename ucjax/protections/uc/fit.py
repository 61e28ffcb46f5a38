"""The rows `uc` and `cluster_untrained`: from images to the noise of their clusters."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from ucjax.clusters.kmeans import Clusters
from ucjax.protections.contract import Given
from ucjax.protections.noise import Noise, Pixels
from ucjax.protections.uc import training
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime import checkpoint, parallel

# What a row may set of the shared `config.noise`, beside the budget.
KEYS = tuple(f.name for f in fields(NoiseSpec) if f.name not in ("epsilon_255", "seed"))
NOISE, TRAINING = "noise.safetensors", "training.json"


def fit(given: Given) -> Noise:
    """Trains a noise per cluster (arXiv:2301.01217), or reads the one in `given.folder`."""
    spec = NoiseSpec(**given.config.noise, seed=given.seed)
    clusters, path = given.clusters(), given.folder / NOISE
    if not parallel.agree(path.exists()):
        unfinished = given.folder / "checkpoint.safetensors"
        trained = training.train(
            given.images,
            clusters,
            given.surrogate(),
            spec,
            size=given.config.data.crop,
            mesh=given.mesh,
            checkpoint_file=unfinished,
            metrics=given.metrics,
            budget_bytes=given.budget_bytes,
            progress=given.progress,
        )
        if parallel.is_main():
            curve = {
                "loss": trained.loss,
                "moved": trained.moved,
                "target": trained.target.tolist(),
            }
            checkpoint.write_json(given.folder / TRAINING, curve)
            checkpoint.save_tree(path, {"noise": trained.noise})
            unfinished.unlink(missing_ok=True)
        parallel.barrier("noise")
    passes = spec.epochs * len(given.images)
    if spec.scope == "all":
        passes *= len(clusters.centers)
    return _noise(checkpoint.load_arrays(path)["noise"], clusters, given, passes)


def untrained(given: Given) -> Noise:
    """Gives what training would begin with: the generators' first pictures, within the budget."""
    spec, clusters = NoiseSpec(**given.config.noise, seed=given.seed), given.clusters()
    p, size = len(clusters.centers), given.config.data.crop
    return _noise(training.initial_noise(spec, p=p, size=size, mesh=given.mesh), clusters, given, 0)


def _noise(pixels: np.ndarray, clusters: Clusters, given: Given, passes: int) -> Noise:
    data, spec = given.config.data, given.config.noise
    patterns = Pixels(pixels.__getitem__, data.crop, data.short_side, spec.epsilon_255, spec.norm)
    rows = clusters.assignment
    return Noise(patterns, rows, spec.epsilon_255, spec.norm, rows, passes)
