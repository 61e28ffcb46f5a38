"""Filled tables made of numbers, for tests of what is computed from them and said of them."""

import math

from ucjax.comparison.table import Column, Entry, Line, Table
from ucjax.victims.training import EpochRecord, VictimResult

COLUMN = "resnet18"


def victim(last, peak=None, train=0.97):
    peak = last if peak is None else peak
    curve = (EpochRecord(2.0, train / 2, peak), EpochRecord(1.0, train, last))
    return VictimResult(last, peak, curve, (last, None))


def line(label, row=None, **changes):
    changed = label not in ("clean", "clean_original")
    values = {
        "files": 12,
        "labels": "none",
        "epsilon_255": 16 * changed,
        "max_delta_255": 16 * changed,
        "mean_abs_delta_255": 12.8 * changed,
        "psnr_median": 25.3 if changed else math.inf,
        "ssim_median": 0.71 if changed else 1.0,
        "seconds": 2.04 if changed else None,
        "image_passes": 60 * (row == "uc" or label == "uc"),
    }
    return Line(label=label, row=row or label, **{**values, **changes})


def entry(label, *accuracies, peaks=None, train=0.97, column=COLUMN):
    pairs = zip(accuracies, peaks or accuracies, strict=True)
    results = {(0, seed): victim(*pair, train) for seed, pair in enumerate(pairs)}
    return Entry(label, column, results)


CLEAN = entry("clean", 0.85, 0.86, 0.87)
RANDOM = entry("random", 0.83, 0.84, 0.85)
CLUSTER_RANDOM = entry("cluster_random", 0.60, 0.62, 0.64)
UC = entry("uc", 0.30, 0.31, 0.33)


def table(*entries, test_count=1000, chance=0.1, classes=("cat", "dog"), rows=(), **changes):
    """Returns a table of these entries, each label a row of its own."""
    entries = entries or (CLEAN, RANDOM, CLUSTER_RANDOM, UC)
    labels = dict.fromkeys(e.label for e in entries)
    values = {
        "config": {"seed": 0, "data": {"root": "/photos"}},
        "environment": {"command": "python -m ucjax.main", "packages": {"jax": "0.10"}},
        "train_count": 12,
        "lines": tuple(rows) or tuple(line(label) for label in labels),
        "columns": tuple(
            Column(name, classes, test_count, chance)
            for name in dict.fromkeys(e.column for e in entries)
        ),
        "entries": tuple(e for e in entries if e.results),
    }
    return Table(**{**values, **changes})
