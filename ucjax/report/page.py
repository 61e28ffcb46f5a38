"""The page of a run: one HTML file that needs nothing else, for owners and researchers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ucjax.comparison import verdict
from ucjax.comparison.table import Table
from ucjax.comparison.verdict import Verdict
from ucjax.report import document, plots, tables, tiles
from ucjax.report.glossary import GLOSSARY, PROTOCOL
from ucjax.runtime import checkpoint

# Pixels a group of pictures may hold, so that the page stays near 3 MB whatever p and m are.
_PAIR_PIXELS, _NOISE_PIXELS, _EXAMPLE_PIXELS = 200_000, 160_000, 1_500_000


@dataclass(frozen=True)
class Pictures:
    """What the page shows beside the numbers, of one row.

    Attributes:
      row: its label.
      clean: Sample images, uint8 `[m, s, s, 3]`.
      protected: The same images from the decoded protected files, uint8 `[m, s, s, 3]`.
      clusters: Their clusters, int `[m]`.
      noise: The noise of each cluster on grey, in pixels of [0, 1], float32 `[p, s, s, 3]`.
      examples: e images of every cluster, uint8 `[p, e, s, s, 3]`.
      before: Surrogate features of the clean images, float32 `[n, d]`.
      after: Surrogate features of the protected files, float32 `[n, d]`.
      assignment: Clusters, int `[n]`.
      purity: Of the clusters against the labels, None without labels.
      epsilon_255: The budget in levels.
      loss: Of training, an epoch each; empty if nothing was trained.
      moved: Share of training crops whose nearest centre is the wrong one, an epoch each.
    """

    row: str
    clean: np.ndarray
    protected: np.ndarray
    clusters: np.ndarray
    noise: np.ndarray
    examples: np.ndarray
    before: np.ndarray
    after: np.ndarray
    assignment: np.ndarray
    purity: float | None
    epsilon_255: int
    loss: tuple[float, ...] = ()
    moved: tuple[float, ...] = ()


def write(table: Table, pictures: Pictures | None, folder: Path) -> None:
    """Writes `report.html` into `folder`, atomically."""
    checkpoint.write_bytes(folder / "report.html", render(table, pictures).encode())


def render(table: Table, pictures: Pictures | None) -> str:
    """Returns the page; equal inputs give equal text."""
    parts = [_headline(table), _table(table), _victims(table)]
    if pictures is not None:
        parts += [_pairs(pictures), _noise(pictures), _clusters(pictures), _features(pictures)]
    body = "\n".join([*parts, _meaning(), _reproduce(table)])
    return document.render("run", title="ucjax report", body=Markup(body))


def _headline(table: Table) -> str:
    found = verdict.judge(table)
    kind = {True: "verdict shown", False: "verdict not", None: "verdict"}[found.shown]
    # A number, its spread and its unit stay on one line.
    result = escape(found.result).replace(" ± ", "&nbsp;±&nbsp;").replace(" %", "&nbsp;%")
    rule = verdict.RULE if found.shown is not None else ""
    return (
        "<h1>ucjax · what this comparison found</h1>\n"
        f'<div class="{kind}"><p class="result">{result}</p>'
        f"<p><strong>{escape(found.meaning)}</strong></p>"
        f"{_others(table, found)}"
        f'<p class="soft">{rule} Keep this page to yourself: it shows clean images and the noise, '
        "with which the protection can be undone.</p></div>"
    )


def _others(table: Table, first: Verdict) -> str:
    """Says of every other protection and victim in a line what is shown."""
    lines = []
    for entry in table.entries:
        if entry.label in verdict.protected(table):
            found = verdict.judge(table, entry.label, entry.column)
            if found != first:
                lines.append(
                    f"<li>{escape(entry.label)} against {escape(entry.column)}: "
                    f"{escape(found.meaning)}</li>"
                )
    listed = "".join(lines)
    return f"<details><summary>The others</summary><ul>{listed}</ul></details>" if lines else ""


def _table(table: Table) -> str:
    columns = {column.test_count for column in table.columns}
    tested = f"; clean test on {max(columns)} images" if columns else ""
    return (
        f"<h2>Results</h2>\n{_grid(tables.accuracies(table), colored=True)}\n"
        f'<p class="soft">Accuracy in % on clean test images after the last epoch (best epoch), '
        f"mean ± standard deviation over the seeds. {table.train_count} images to train on{tested}."
        f"</p>\n<h2>The files</h2>\n{_grid(tables.facts(table), colored=True)}"
    )


def _grid(rows: list[tuple[str, ...]], *, colored: bool) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = []
    for label, *cells in rows[1:]:
        dot = _dot(plots.row_color(label)) if colored else ""
        body.append(
            f"<tr><td>{dot}{escape(label)}</td>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _victims(table: Table) -> str:
    if not table.entries:
        return (
            "<h2>Victims</h2>\n<p>None was trained. Labelled images, with some kept for testing, "
            "are needed to measure how well the protection holds.</p>"
        )
    column = table.entries[0].column
    trained = [entry for entry in table.entries if entry.column == column]
    legend = "".join(
        f"<span>{_dot(plots.row_color(entry.label))}{escape(entry.label)}</span>"
        for entry in trained
    )
    return (
        f'<h2>Victims {escape(column)} by epoch</h2>\n<div class="legend">{legend}</div>\n'
        '<div class="plots">'
        + _figure(
            plots.test_accuracy(trained),
            "On clean test images: mean over the seeds; the band runs from the lowest to the "
            "highest.",
        )
        + _figure(
            plots.train_accuracy(trained),
            "On the files they train on, with crops and flips. High here and low on clean "
            "images: the victim learnt the noise.",
        )
        + "</div>"
    )


def _pairs(pictures: Pictures) -> str:
    side = tiles.fitting(pictures.clean, _PAIR_PIXELS)
    gain = 127.5 / pictures.epsilon_255
    cards = []
    for clean, protected, cluster in zip(
        tiles.middle(pictures.clean, side),
        tiles.middle(pictures.protected, side),
        pictures.clusters,
        strict=True,
    ):
        change = (protected.astype(np.float32) - clean.astype(np.float32)) / 255
        shown = (clean, protected, tiles.amplified(change, pictures.epsilon_255))
        images = "".join(
            tiles.lossless(pixels, f"{kind}, cluster {cluster}")
            for pixels, kind in zip(shown, ("clean", "protected", "change"), strict=True)
        )
        cards.append(
            f'<figure><div class="three">{images}</div><figcaption>clean · protected · change '
            f"× {gain:.3g} · cluster {cluster}</figcaption></figure>"
        )
    return (
        f'<h2>Clean and protected: {escape(pictures.row)}</h2>\n<p class="soft">'
        f"Lossless, {tiles.extent(pictures.clean, side)}. "
        "The change is the decoded protected file minus the clean image, on grey, "
        f'amplified {gain:.3g} times.</p>\n<div class="pairs">{"".join(cards)}</div>'
    )


def _noise(pictures: Pictures) -> str:
    if not pictures.loss:
        return ""
    moved = [100 * share for share in pictures.moved]
    return (
        '<h2>Learning the noise</h2>\n<div class="plots">'
        + _figure(
            plots.curve(pictures.loss, "loss"),
            "Mean distance of the noisy images' features from the wrong centre, by epoch.",
        )
        + _figure(
            plots.curve(moved, "images moved, %"),
            "Share of the training crops whose nearest centre is the wrong one they are sent to.",
        )
        + "</div>"
    )


def _clusters(pictures: Pictures) -> str:
    sizes = np.bincount(pictures.assignment, minlength=len(pictures.noise)).tolist()
    colors = plots.cluster_colors(len(sizes))
    side = tiles.fitting(pictures.noise, _NOISE_PIXELS)
    noise = tiles.amplified(tiles.middle(pictures.noise, side), pictures.epsilon_255)
    purity = "" if pictures.purity is None else f"Purity {pictures.purity:.2f}. "
    thumb = min(
        96, tiles.fitting(pictures.examples.reshape(-1, *pictures.noise.shape[1:]), _EXAMPLE_PIXELS)
    )
    rows = []
    for i, (size, color) in enumerate(zip(sizes, colors, strict=True)):
        share, width = 100 * size / max(sum(sizes), 1), 100 * size / max(sizes)
        rows.append(
            f'<div class="cluster"><div>{_dot(color)}Cluster {i}<br>'
            f'<span class="soft">{size} images ({share:.0f} %)</span>'
            f'<div class="bar" style="width:{width:.1f}%;background:{color}"></div></div>'
            # Not by "+", with which markup would escape the text before it.
            f"{tiles.lossless(noise[i], f'noise of cluster {i}')}"
            f"{tiles.strip(pictures.examples[i], thumb, f'examples of cluster {i}')}</div>"
        )
    return (
        f'<h2>Clusters and their noise</h2>\n<p class="soft">{purity}Size, noise '
        f"({tiles.extent(pictures.noise, side)}; on grey, "
        f"amplified {127.5 / pictures.epsilon_255:.3g} times) and examples of every cluster.</p>\n"
        + "\n".join(rows)
    )


def _features(pictures: Pictures) -> str:
    clean, protected, share = plots.feature_maps(
        pictures.before, pictures.after, pictures.assignment
    )
    return (
        '<h2>What the surrogate sees</h2>\n<div class="plots">'
        + _figure(clean, "Features of the clean images, coloured by cluster.")
        + _figure(protected, "The protected files on the same axes and in the same colours.")
        + '</div>\n<p class="soft">Plane of the first two principal components of the clean '
        f"features ({100 * share:.0f} % of their variance). Crosses mark the clean clusters' "
        "centres in both.</p>"
    )


def _meaning() -> str:
    entries = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in GLOSSARY.items())
    return f"<h2>What is compared, and how</h2>\n<p>{PROTOCOL}</p>\n<dl>{entries}</dl>"


def _reproduce(table: Table) -> str:
    environment = _lines({k: v for k, v in table.environment.items() if k != "command"})
    return (
        '<h2>Reproduce</h2>\n<pre class="command">'
        f"{escape(str(table.environment.get('command', '')))}</pre>\n"
        f"<details><summary>Config</summary><pre>{_lines(table.config)}</pre></details>\n"
        f"<details><summary>Environment</summary><pre>{environment}</pre></details>\n"
        '<p class="soft">The numbers of this page, with every epoch of every victim, are in '
        "<code>table.json</code> and <code>table.csv</code> beside it.</p>"
    )


def _lines(tree: Mapping[str, Any], prefix: str = "") -> str:
    return "\n".join(
        _lines(value, f"{prefix}{key}.")
        if isinstance(value, Mapping)
        else escape(f"{prefix}{key} = {value!r}")
        for key, value in tree.items()
    )


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{escape(caption)}</figcaption></figure>"


def _dot(color: str) -> str:
    return f'<span class="dot" style="background:{color}"></span>'
