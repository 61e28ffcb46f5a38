"""The page of `ucjax preview`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ucjax.photos import measured
from ucjax.photos.preview import Preview, Shown, Version
from ucjax.report import document, tiles

GAIN = 8
_PLACES = ("The flattest part", "The busiest part")
_FIGURES = (
    "psnr",
    "ssim_luma",
    "ssim_luma_screen",
    "delta_e_mean",
    "delta_e_mean_screen",
)


def write(preview: Preview, photos: Path, page: Path) -> None:
    """Writes the page.

    Args:
      preview: what it shows.
      photos: the folder as it was typed, for the commands on the page.
      page: where to.

    Raises:
      UserError: there is something at `page` that is no page of ours.
    """
    document.write(page, render(preview, photos))


def render(preview: Preview, photos: Path) -> str:
    """Returns the page; equal inputs give equal text."""
    typed, middle = shlex.quote(str(photos)), preview.budgets[(len(preview.budgets) - 1) // 2]
    return document.render(
        "preview",
        title="ucjax preview",
        preview=preview,
        titles=titles(preview),
        summary=summary(preview),
        state=measured.STATE,
        said=[measured.said(budget.row, budget.epsilon_255) for budget in preview.budgets],
        photographs=[
            _photograph(shown, titles(preview), number)
            for number, shown in enumerate(preview.shown)
        ],
        gain=GAIN,
        commands=[
            f"ucjax protect {typed} OUT --protection {shlex.quote(middle.row)}",
            f"ucjax verify OUT --against {typed}",
            f"ucjax evaluate {typed} OUT",
        ],
    )


def titles(preview: Preview) -> list[str]:
    """Returns what each budget is called."""
    return [budget.title for budget in preview.budgets]


def summary(preview: Preview) -> list[dict[str, float]]:
    """Returns the medians over the shown photographs of each budget's figures, and the growth."""
    found = []
    for number in range(len(preview.budgets)):
        versions = [shown.versions[number] for shown in preview.shown]
        values = {key: median(getattr(v.fidelity, key) for v in versions) for key in _FIGURES}
        before = sum(shown.size for shown in preview.shown)
        values["growth"] = sum(version.size for version in versions) / max(1, before)
        found.append(values)
    return found


def text(preview: Preview) -> list[tuple[str, ...]]:
    """Returns a header and a row a budget, for the terminal."""
    rows: list[tuple[str, ...]] = [("noise", "PSNR", "SSIM, screen", "CIEDE2000, screen", "size")]
    for title, values in zip(titles(preview), summary(preview), strict=True):
        psnr = values["psnr"]
        rows.append(
            (
                title,
                f"{psnr:.1f} dB" if math.isfinite(psnr) else "∞",
                f"{values['ssim_luma_screen']:.3f}",
                f"{values['delta_e_mean_screen']:.1f}",
                f"× {values['growth']:.2f}",
            )
        )
    return rows


def _photograph(shown: Shown, names: Sequence[str], number: int) -> dict[str, Any]:
    """Returns a photograph's pictures as elements; ids are by its number on the page."""
    views = [_view(shown, names, f"clean-{number}", "The whole picture", None)]
    for place, crop in enumerate(shown.crops):
        title = f"{_PLACES[place]}, {len(crop)} × {len(crop)} pixels 1:1"
        views.append(_view(shown, names, f"clean-{number}-{place}", title, place))
    return {"shown": shown, "views": views}


def _view(
    shown: Shown, names: Sequence[str], id_: str, title: str, place: int | None
) -> dict[str, Any]:
    """Returns one part of a photograph, clean and with each noise; the whole if it is None."""
    draw = tiles.photograph if place is None else tiles.lossless
    alt = f"{shown.name}, {title[0].lower()}{title[1:]}"

    def part(of: Shown | Version) -> np.ndarray:
        return of.whole if place is None else of.crops[place]

    return {
        "id": id_,
        "title": title,
        "clean": draw(part(shown), f"{alt}: clean", id=id_, icc=shown.icc),
        "versions": [
            {
                "protected": draw(part(version), f"{alt}: {name}", icc=shown.icc),
                "change": draw(
                    tiles.difference(part(shown), part(version), GAIN),
                    f"{alt}: change by {name}, times {GAIN}",
                ),
            }
            for version, name in zip(shown.versions, names, strict=True)
        ],
    }
