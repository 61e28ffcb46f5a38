"""The table as aligned text for the terminal, and as cells for the page."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ucjax.comparison import verdict
from ucjax.comparison.table import Line, Table, drop, leaderboard
from ucjax.comparison.verdict import Verdict, percent

FACTS = (
    "files of", "seen early %", "mean |δ|", "max |δ|", "PSNR", "SSIM", "labels", "passes",
    "seconds",
)  # fmt: skip
RANKED = (
    "protection", "victim", "seeds", "last %", "drop", "95 % interval", "PSNR", "SSIM", "seconds",
    "passes", "labels", "run",
)  # fmt: skip


def accuracies(table: Table) -> list[tuple[str, ...]]:
    """Returns a header and a row per protection: last epoch in percent, the best in brackets."""
    names = [column.name for column in table.columns]
    found = [("trained on", *(column.title for column in table.columns))]
    for line in table.lines:
        entries = [table.entry(line.label, name) for name in names]
        found.append(
            (
                line.label,
                *(f"{percent(e)} ({percent(e, 'peak')})" if e else "–" for e in entries),
            )
        )
    return found


def facts(table: Table) -> list[tuple[str, ...]]:
    """Returns a header and a row per protection: what is known of its files."""
    return [FACTS, *(_facts(line) for line in table.lines)]


def _facts(line: Line) -> tuple[str, ...]:
    mean = f"{line.mean_abs_delta_255:.1f}"
    if line.epsilon_255:
        mean += f" = {line.mean_abs_delta_255 / line.epsilon_255:.2f} eps"
    seen = "–"
    if line.availability is not None:
        told, clean = line.availability.row[1], line.availability.clean[1]
        seen = f"{100 * told:.0f} (clean {100 * clean:.0f})"
    return (
        line.label,
        seen,
        mean,
        str(line.max_delta_255),
        _decibels(line.psnr_median),
        f"{line.ssim_median:.3f}",
        line.labels,
        str(line.image_passes),
        _seconds(line),
    )


def text(table: Table) -> str:
    """Returns both tables with aligned columns, headed by what was compared."""
    lines = [head(table), *aligned(facts(table))]
    if table.columns:
        lines[1:1] = [*aligned(accuracies(table)), ""]
    return "\n".join(lines)


def head(table: Table) -> str:
    """Says what was trained on, what the numbers are, and what guessing would reach."""
    trained = f"{table.train_count} images to train on"
    if not table.columns:
        return trained
    tests = sorted({str(column.test_count) for column in table.columns})
    chances = sorted({f"{100 * column.chance:.1f}" for column in table.columns}, key=float)
    return (
        f"{trained}; accuracy in % on {' or '.join(tests)} clean test images after the last epoch "
        "(best epoch), mean ± std over the seeds; guessing reaches "
        f"{' or '.join(chances)}"
    )


def said(table: Table, found: Verdict) -> str:
    """Returns the table, what it shows, and what to do about it, as every command ends."""
    advice = verdict.advice(found, table)
    return "\n".join([text(table), "", found.result, found.meaning, advice])


def ranked(tables: Sequence[Table], runs: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns a header and the entries of all tables, the largest drop first, in points.

    Args:
      tables: of several runs.
      runs: what each of them is called.
    """
    found: list[tuple[str, ...]] = [RANKED]
    run_of = {id(table): run for table, run in zip(tables, runs, strict=True)}
    for table, entry in leaderboard(tables):
        line, fell = table.line(entry.label), drop(table, entry)
        found.append(
            (
                entry.label,
                table.column(entry.column).title,
                str(len(entry.results)),
                percent(entry),
                f"{100 * fell[0]:.1f}" if fell else "–",
                f"{100 * fell[1]:.1f} to {100 * fell[2]:.1f}" if fell else "–",
                _decibels(line.psnr_median),
                f"{line.ssim_median:.3f}",
                _seconds(line),
                str(line.image_passes),
                line.labels,
                run_of[id(table)],
            )
        )
    return found


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Returns lines in which the first column is flush left and the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _decibels(psnr: float) -> str:
    return f"{psnr:.1f}" if math.isfinite(psnr) else "∞"


def _seconds(line: Line) -> str:
    return "–" if line.seconds is None else f"{line.seconds:.1f}"
