"""The numbers of a run: what report.json holds and the page shows."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ucjax.victims.training import VictimResult


@dataclass(frozen=True)
class Victims:
    """The victims trained on one set of files.

    Attributes:
      name: "clean" | "random" | "cluster_random" | "protected".
      victims: results by seed.
    """

    name: str
    victims: dict[int, VictimResult]

    def last(self) -> tuple[float, float]:
        """Mean and standard deviation over the seeds of the last epoch's clean test accuracy."""
        return mean_std([result.last for result in self.victims.values()])

    def peak(self) -> tuple[float, float]:
        """Mean and standard deviation over the seeds of the best epoch's accuracy."""
        return mean_std([result.peak for result in self.victims.values()])


@dataclass(frozen=True)
class Arm(Victims):
    """One set of files and the victims trained on it.

    Attributes:
      max_delta_255: largest change of a pixel, in levels, measured on the decoded files.
      mean_abs_delta_over_eps: mean change of a pixel, as a share of the budget.
      psnr_median: dB over the files; infinite for unchanged files.
      ssim_median: over the files.
      moved: share of files whose nearest cluster centre is their target, in the surrogate.
    """

    max_delta_255: int
    mean_abs_delta_over_eps: float
    psnr_median: float
    ssim_median: float
    moved: float


@dataclass(frozen=True)
class Summary:
    """A whole run."""

    config: dict[str, Any]
    environment: dict[str, Any]
    train_count: int
    test_count: int
    class_names: tuple[str, ...]
    cluster_sizes: tuple[int, ...]
    purity: float | None  # of the clusters against the labels; None for unlabelled images
    noise_loss: tuple[float, ...]  # an epoch each
    noise_moved: tuple[float, ...]
    arms: tuple[Arm, ...]


def mean_std(values: list[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation (0 for one value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def to_json(summary: Summary) -> dict[str, Any]:
    """Returns everything in `summary` as plain JSON; what is not finite becomes null."""
    fields = {
        field.name: getattr(summary, field.name)
        for field in dataclasses.fields(summary)
        if field.name != "arms"
    }
    return _plain({**fields, "arms": [_arm(arm) for arm in summary.arms]})


def _arm(arm: Arm) -> dict[str, Any]:
    measured = {
        field.name: getattr(arm, field.name)
        for field in dataclasses.fields(arm)
        if field.name != "victims"
    }
    trained = bool(arm.victims)
    return {
        **measured,
        "last": dict(zip(("mean", "std"), arm.last(), strict=True)) if trained else None,
        "peak": dict(zip(("mean", "std"), arm.peak(), strict=True)) if trained else None,
        "victims": [
            {
                "seed": seed,
                "last": result.last,
                "peak": result.peak,
                "curve": [record._asdict() for record in result.curve],
            }
            for seed, result in arm.victims.items()
        ],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no infinity, which is the PSNR of unchanged files
    return value
