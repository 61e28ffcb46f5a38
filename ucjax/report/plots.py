"""The curves and maps of the page, as SVG that takes its ink from the page around it.

matplotlib is imported where it draws, and never through pyplot: no global figure is touched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ucjax.comparison.table import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLORS = {
    "clean": "#3a86c8",
    "clean_original": "#7fb3dd",
    "random": "#8b929c",
    "cluster_random": "#d98f1f",
    "cluster_untrained": "#b0803a",
    "uc": "#cf3f5b",
    "protected": "#cf3f5b",
}
_OTHERS = ("#7a5fc0", "#2e8b57", "#c25fa8", "#4aa3a3", "#8a6d3b")
# Replaced in the SVG by colours that follow the page's light or dark theme.
_INK, _FAINT = "#010203", "#040506"
_SIZE = (4.6, 3.1)  # inches; small, so that the text stays readable on a phone
_STYLE: dict[str, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "ucjax",
}


def row_color(label: str) -> str:
    """Returns the colour of a row as `#rrggbb`, the same in every picture."""
    return _COLORS.get(label) or _OTHERS[sum(label.encode()) % len(_OTHERS)]


def cluster_colors(count: int) -> list[str]:
    """Returns `#rrggbb` for `count` clusters, distinct up to 20."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if count <= 20:
        return [to_hex(colormaps["tab10" if count <= 10 else "tab20"](i)) for i in range(count)]
    return [to_hex(colormaps["hsv"](i / count)) for i in range(count)]


def test_accuracy(entries: Sequence[Entry]) -> str:
    """Draws clean test accuracy by epoch: mean over the seeds, band from lowest to highest."""
    return _accuracy(entries, "test_accuracy", "clean test accuracy, %", style="-")


def train_accuracy(entries: Sequence[Entry]) -> str:
    """Draws accuracy on the training files by epoch, dashed, on the same scale."""
    return _accuracy(entries, "train_accuracy", "train accuracy, %", style="--")


def curve(values: Sequence[float], label: str) -> str:
    """Draws one value an epoch."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _epochs(axes, len(values))
        axes.plot(
            range(1, len(values) + 1), values, color=_COLORS["protected"], **_marks(len(values))
        )
        axes.set_ylabel(label)

    return _svg(draw, label)


def feature_maps(
    before: np.ndarray, after: np.ndarray, assignment: np.ndarray
) -> tuple[str, str, float]:
    """Draws features in the plane of the clean ones' first two principal components.

    Args:
      before: Features of the clean images, float `[n, d]`.
      after: Features of the protected images, float `[n, d]`.
      assignment: Clusters, int `[n]`.

    Returns:
      Two SVGs on the same axes, clean and protected, and the share of the clean features'
      variance that the plane holds.
    """
    mean, axes, share = principal_plane(before)
    flat = [(rows - mean) @ axes for rows in (before, after)]
    centers = np.stack(
        [flat[0][assignment == i].mean(0) for i in np.unique(assignment)]
    )  # fmt: skip
    low, high = np.min(np.concatenate(flat), 0), np.max(np.concatenate(flat), 0)
    margin = 0.05 * np.maximum(high - low, 1e-6)
    colors = np.array(cluster_colors(int(assignment.max()) + 1))
    maps = [
        _feature_map(points, centers, colors, assignment, low - margin, high + margin, label)
        for points, label in zip(flat, ("clean files", "protected files"), strict=True)
    ]
    return maps[0], maps[1], share


def principal_plane(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Fits the two directions of largest variance.

    Args:
      rows: float `[n, d]`, d at least 2.

    Returns:
      The mean `[d]`, orthonormal columns `[d, 2]` with a sign that does not depend on the
      solver, and the share of the variance they hold.
    """
    mean = rows.mean(0, dtype=np.float64)
    centered = rows - mean
    # The small [d, d] side of the decomposition: n may be a hundred thousand images.
    directions, values, _ = np.linalg.svd(centered.T @ centered)
    plane = directions[:, :2]
    largest = plane[np.argmax(np.abs(plane), axis=0), np.arange(2)]
    total = float(values.sum())
    share = float(values[:2].sum()) / total if total else 1.0
    return mean, plane * np.where(largest < 0, -1.0, 1.0), share


def _accuracy(entries: Sequence[Entry], field: str, label: str, *, style: str) -> str:
    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        longest = 1
        for entry in entries:
            values = [
                [100 * getattr(record, field) for record in victim.curve]
                for victim in entry.results.values()
            ]
            if not values:
                continue
            epochs = min(map(len, values))
            table = np.array([row[:epochs] for row in values])
            longest = max(longest, epochs)
            x, color = np.arange(1, epochs + 1), row_color(entry.label)
            axes.plot(x, table.mean(0), style, color=color, **_marks(epochs))
            axes.fill_between(x, table.min(0), table.max(0), color=color, alpha=0.18, lw=0)
        _epochs(axes, longest)
        axes.set_ylim(0, 101)
        axes.set_ylabel(label)

    return _svg(draw, label)


def _feature_map(
    points: np.ndarray, centers: np.ndarray, colors: np.ndarray, assignment: np.ndarray,
    low: np.ndarray, high: np.ndarray, label: str,
) -> str:  # fmt: skip
    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        size = float(np.clip(4000 / len(points), 1.5, 16))
        # Thousands of vector circles would be the largest thing on the page.
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=size,
            c=colors[assignment],
            alpha=0.55,
            linewidths=0,
            rasterized=True,
        )
        axes.scatter(
            centers[:, 0],
            centers[:, 1],
            s=75,
            c=colors[np.unique(assignment)],
            marker="X",
            edgecolors=_INK,
            lw=1.2,
        )
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
        axes.set_xlabel("first principal component")
        axes.set_ylabel("second")

    return _svg(draw, f"features of the {label}")


def _epochs(axes: Axes, count: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.5, 1.02 * count + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.grid(axis="x", visible=False)


def _marks(epochs: int) -> dict[str, Any]:
    return {"linewidth": 1.8, "marker": "o" if epochs < 3 else None, "markersize": 4}


def _svg(draw: Any, label: str) -> str:
    """Runs `draw` on a new figure and returns it as an element for inlining in HTML."""
    import io

    from matplotlib import style
    from matplotlib.figure import Figure

    # The user's matplotlibrc must not restyle the page.
    with style.context(_STYLE, after_reset=True):
        figure = Figure(figsize=_SIZE, dpi=160, layout="constrained")
        draw(figure)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return _inline(stream.getvalue(), label)


def _inline(svg: str, label: str) -> str:
    # Inlined figures share one document: ids must differ, colours follow the page's theme, and
    # matplotlib's own style sheet and licence block would apply to the page.
    name = re.sub(r"\W+", "-", label).strip("-")
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = svg.replace(_INK, "currentColor").replace(_FAINT, "var(--line)")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = (
        f'<svg class="plot" role="img" aria-label="{label}" {box.group()} '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return head + svg[svg.index(">") + 1 :].strip()
