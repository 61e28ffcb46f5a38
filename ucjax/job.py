"""A run's settings and place, and the checks that come before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax.errors import UserError
from ucjax.protections.uc import perturbation
from ucjax.protections.uc.perturbation import NoiseSpec
from ucjax.runtime import parallel
from ucjax.runtime.progress import MetricsFile, Progress
from ucjax.victims import training as victims
from ucjax.victims.training import VictimSpec

T = TypeVar("T")
ARMS = ("clean", "random", "cluster_random", "protected")


@dataclass(frozen=True)
class Job:
    """What every stage is given: the checked config, and where it runs."""

    config: ConfigDict
    noise: NoiseSpec
    victim: VictimSpec
    folder: Path
    mesh: Mesh
    metrics: MetricsFile
    progress: Callable[..., Progress] = Progress


def check(config: ConfigDict, folder: Path, mesh: Mesh) -> Job:
    """Refuses impossible settings before anything is loaded.

    Raises:
      UserError: naming the key, its value and the cure.
    """
    noise_spec = NoiseSpec(**config.noise, seed=config.seed)
    victim = {k: v for k, v in config.victim.items() if k not in ("arms", "seeds")}
    victim_spec = VictimSpec(**victim)
    perturbation.check(noise_spec, p=config.clusters.k, devices=mesh.size)
    victims.check(victim_spec, devices=mesh.size)
    for section, short_side, crop in (
        ("data", config.data.short_side, config.data.crop),
        ("victim", config.victim.short_side, config.victim.crop),
    ):
        if not 1 <= crop <= short_side:
            raise UserError(
                f"config.{section}.crop is {crop} and config.{section}.short_side {short_side}: "
                "a crop must fit into the short side"
            )
    source = config.data.source
    unknown = set(config.victim.arms) - set(ARMS)
    if unknown:
        raise UserError(f"config.victim.arms: {unknown.pop()!r} is not one of {', '.join(ARMS)}")
    geometry = config.protect.geometry
    if geometry not in ("crop", "native") or (geometry == "native") > (source == "folder"):
        raise UserError(
            f"config.protect.geometry is {geometry!r} with data.source {source!r}: choose crop, or "
            "native, which needs the files of a folder"
        )
    metrics = MetricsFile(folder / "metrics.jsonl")
    return Job(config, noise_spec, victim_spec, folder, mesh, metrics)


def in_turn(make: Callable[[], T]) -> T:
    """Lets process 0 build a cache before the others, on a shared disk, only open it."""
    if parallel.is_main():
        value = make()
        parallel.barrier("built")
        return value
    parallel.barrier("built")
    return make()


def cache_folder(job: Job) -> Path:
    """The folder of decoded images."""
    return Path(job.config.data.cache or parallel.cache_folder() / "images")


def budget_bytes(job: Job) -> int | None:
    """Returns the configured memory for images on a device, None for automatic."""
    return job.config.feed_budget_mb * 2**20 or None
