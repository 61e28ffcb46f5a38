"""The result table: as text for the terminal, as rows for the page."""

from __future__ import annotations

import math
from typing import Literal

from ucjax.report.summary import Arm, Summary, Victims

HEADER = (
    "files", "last epoch %", "peak %", "seeds", "moved %", "mean |δ|/eps", "max |δ|", "PSNR",
    "SSIM",
)  # fmt: skip


def rows(summary: Summary) -> list[tuple[str, ...]]:
    """Returns a row of `HEADER`'s columns for every arm; accuracies as mean ± std over seeds."""
    return [_row(arm) for arm in summary.arms]


def text(summary: Summary) -> str:
    """Returns the table with aligned columns, headed by the run's own facts."""
    table = [HEADER, *rows(summary)]
    widths = [max(len(row[i]) for row in table) for i in range(len(HEADER))]
    lines = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    purity = "" if summary.purity is None else f", purity {summary.purity:.2f}"
    head = (
        f"{summary.train_count} images, {len(summary.cluster_sizes)} clusters{purity}; clean test "
        f"accuracy on {summary.test_count} images"
    )
    return "\n".join([head, *lines])


def _row(arm: Arm) -> tuple[str, ...]:
    trained = bool(arm.victims)
    return (
        arm.name.replace("_", " "),
        accuracy(arm, "last") if trained else "–",
        accuracy(arm, "peak") if trained else "–",
        str(len(arm.victims)),
        f"{100 * arm.moved:.0f}",
        f"{arm.mean_abs_delta_over_eps:.2f}",
        str(arm.max_delta_255),
        f"{arm.psnr_median:.1f}" if math.isfinite(arm.psnr_median) else "∞",
        f"{arm.ssim_median:.3f}",
    )


def accuracy(arm: Victims, measure: Literal["last", "peak"]) -> str:
    """Returns percent as mean ± std over the seeds; one seed has no spread to show."""
    mean, std = arm.last() if measure == "last" else arm.peak()
    return f"{100 * mean:.1f} ± {100 * std:.1f}" if len(arm.victims) > 1 else f"{100 * mean:.1f}"
