"""The page at the end of `ucjax protect` and `ucjax evaluate`: `OUT/report.html`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ucjax.comparison import verdict
from ucjax.comparison.table import Entry, Table
from ucjax.files.manifest import Failure
from ucjax.photos import account, measured
from ucjax.photos.account import Account, Pair
from ucjax.report import document, plots, tables, tiles
from ucjax.runtime import workdir

PAGE, _KIND = "report.html", "owner"
_LISTED = 50  # names of a kind; the manifest holds all
_GAIN = 8
_NAMES = {
    "clean": "clean",
    "clean_original": "untouched",
    "random": "random",
    "cluster_random": "cluster random",
    "protected": "protected",
}


def check(out: Path) -> None:
    """Raises `UserError` if a page of somebody else's is where ours would be."""
    document.check_place(out / PAGE, _KIND)


def write(
    photos: Path,
    out: Path,
    *,
    protector: Path | None = None,
    unlisted: Sequence[Failure] = (),
    evaluated: bool = False,
) -> Path:
    """Writes the page of a finished OUT, unless it is there already, and returns its path.

    Args:
      photos: the originals, as they were typed.
      out: what `ucjax protect` wrote, as it was typed.
      protector: as it was typed, None for the one in `out`.
      unlisted: folders of photos that could not be searched, with the reason.
      evaluated: whether the evaluation in `out` was just made of its copies.

    Raises:
      UserError: `out` is damaged, or holds a page of somebody else's.
      DiskError: it cannot be written.
    """
    if evaluated:
        account.note_evaluation(out)
    typed = ["" if path is None else str(path) for path in (photos, out, protector)]
    of = account.digest(
        out, workdir.versions()["ucjax"], *typed, *(x for pair in unlisted for x in pair)
    )
    if document.digest_of(out / PAGE, _KIND) != of:
        found = account.of(photos, out)
        page = render(found, photos, protector=protector, unlisted=unlisted, digest=of)
        document.write(out / PAGE, page)
    return out / PAGE


def render(
    found: Account,
    photos: Path,
    *,
    protector: Path | None = None,
    unlisted: Sequence[Failure] = (),
    digest: str = "",
) -> str:
    """Returns the page; equal inputs give equal text."""
    failures = (*unlisted, *found.summary.failures)
    commands = _commands(photos, found.summary.folder, protector, evaluated=found.table is not None)
    return document.render(
        _KIND,
        title="ucjax: your photographs",
        digest=digest,
        found=found,
        failures=failures[:_LISTED],
        failure_count=len(failures),
        converted=found.converted[:_LISTED],
        asked=found.job.get("keep", ()),
        kept=("rights and authors", "description", "date", "colour profile"),
        strength=_strength(found),
        seen=_seen(found),
        pairs=[_pair(pair, number) for number, pair in enumerate(found.worst)],
        gain=_GAIN,
        worst_by=account.WORST_BY,
        state=measured.STATE,
        said=measured.said(found.row, int(found.job.get("epsilon_255", 0))),
        attacks=measured.attacks(str(found.job.get("kind", ""))),
        commands=commands,
        **_evaluation(found.table),
    )


def _strength(found: Account) -> dict[str, Any]:
    summary, epsilon_255 = found.summary, int(found.job.get("epsilon_255", 0))
    return {
        "epsilon_255": epsilon_255,
        "format": str(found.job.get("format", "")),
        "norm": str(found.job.get("norm", "")),
        "share": summary.mean_abs_delta_over_eps,
        "largest": summary.max_delta_255,
        "growth": summary.output_bytes / max(1, summary.source_bytes),
    }


def _seen(found: Account) -> list[tuple[str, str, str, str, str]]:
    """Returns what is seen: a figure, its median and worst at 1:1, and both on a screen."""
    summary = found.summary
    psnr = [f"{value:.1f}" for value in (summary.psnr_median, summary.psnr_min)]
    rows = [("PSNR, dB", psnr[0], psnr[1], "", "")]
    for key, name, digits in (
        ("ssim_luma", "SSIM of the brightness", 3),
        ("delta_e_mean", "CIEDE2000, mean of a file", 1),
        ("delta_e_p95", "CIEDE2000, 95th percentile", 1),
    ):
        (median, worst), (on_screen, worst_there) = (
            tuple(f"{figure:.{digits}f}" for figure in summary.seen[which])
            for which in (key, f"{key}_screen")
        )
        rows.append((name, median, worst, on_screen, worst_there))
    return rows


def _pair(pair: Pair, number: int) -> dict[str, Any]:
    name, id_ = str(pair.record["name"]), f"clean-{number}"
    change = tiles.difference(pair.clean, pair.protected, _GAIN)
    return {
        "name": name,
        "id": id_,
        "record": pair.record,
        "clean": tiles.lossless(pair.clean, f"{name}, clean", id=id_, icc=pair.icc),
        "protected": tiles.lossless(pair.protected, f"{name}, protected", icc=pair.icc),
        "change": tiles.lossless(change, f"{name}, change times {_GAIN}"),
    }


def _evaluation(table: Table | None) -> dict[str, Any]:
    """Returns what the evaluation found, in words, bars and a table; nothing is empty."""
    if table is None:
        return {"verdict": None, "kind": "", "bars": [], "accuracies": [], "column": None}
    found = verdict.judge(table)
    column = table.columns[0] if table.entries else None
    entries = [e for e in table.entries if column is not None and e.column == column.name]
    accuracies = tables.accuracies(table) if len(table.columns) > 1 else []
    return {
        "verdict": found,
        "kind": {True: "shown", False: "not", None: ""}[found.shown],
        "bars": [_bar(entry) for entry in entries],
        "accuracies": accuracies,
        "column": column,
    }


def _bar(entry: Entry) -> dict[str, Any]:
    mean, std = entry.mean(), entry.std()
    return {
        "name": _NAMES.get(entry.label, entry.label),
        "color": plots.row_color(entry.label),
        "mean": 100 * mean,
        "low": 100 * max(0.0, mean - std),
        "high": 100 * min(1.0, mean + std),
        "percent": verdict.percent(entry),
    }


def _commands(
    photos: Path, out: Path, protector: Path | None, *, evaluated: bool
) -> list[tuple[str, str]]:
    """Returns the commands that come next, and what each is for."""
    originals, copies = shlex.quote(str(photos)), shlex.quote(str(out))
    check = f"ucjax verify {copies} --against {originals}"
    if protector is not None:
        check += f" --protector {shlex.quote(str(protector))}"
    used = shlex.quote(str(out / "protector" if protector is None else protector))
    first = ("An independent check of what is on disk", check)
    more = ("Other photographs, without training", f"ucjax protect MORE OUT2 --protector {used}")
    if evaluated:
        harder = "--victims resnet18 resnet18+jpeg50 resnet18+mixup"
        return [
            first,
            ("Stronger attackers", f"ucjax evaluate {originals} {copies} {harder}"),
            more,
        ]
    return [
        first,
        (
            "In a minute: how early training would see the noise",
            f"ucjax evaluate {originals} {copies} --quick",
        ),
        ("Does it protect these photographs?", f"ucjax evaluate {originals} {copies}"),
    ]
