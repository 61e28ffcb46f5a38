"""The page of a run: one HTML file that needs nothing else, for owners and researchers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ucjax.report import plots, tables, tiles, verdict
from ucjax.report.glossary import GLOSSARY, PROTOCOL
from ucjax.report.stylesheet import CSS
from ucjax.report.summary import Summary, to_json
from ucjax.report.verdict import Verdict
from ucjax.runtime import checkpoint

# Pixels a group of pictures may hold, so that the page stays near 3 MB whatever p and m are.
_PAIR_PIXELS, _NOISE_PIXELS, _EXAMPLE_PIXELS = 200_000, 160_000, 1_500_000


@dataclass(frozen=True)
class Pictures:
    """What the page shows beside the numbers.

    Attributes:
      clean: Sample images, uint8 `[m, s, s, 3]`.
      protected: The same images from the decoded protected files, uint8 `[m, s, s, 3]`.
      clusters: Their clusters, int `[m]`.
      noise: The learnt noise in pixels of [0, 1], float32 `[p, s, s, 3]`.
      examples: e images of every cluster, uint8 `[p, e, s, s, 3]`.
      before: Surrogate features of the clean images, float32 `[n, d]`.
      after: Surrogate features of the protected files, float32 `[n, d]`.
      assignment: Clusters, int `[n]`.
      epsilon_255: The budget in levels.
    """

    clean: np.ndarray
    protected: np.ndarray
    clusters: np.ndarray
    noise: np.ndarray
    examples: np.ndarray
    before: np.ndarray
    after: np.ndarray
    assignment: np.ndarray
    epsilon_255: int


def write(summary: Summary, pictures: Pictures, folder: Path) -> None:
    """Writes `report.json` and `report.html` into `folder`, each atomically."""
    found = verdict.judge(summary)
    checkpoint.write_json(folder / "report.json", {"verdict": found._asdict(), **to_json(summary)})
    checkpoint.write_bytes(folder / "report.html", render(summary, pictures, found).encode())


def render(summary: Summary, pictures: Pictures, found: Verdict) -> str:
    """Returns the page; equal inputs give equal text."""
    body = "\n".join(
        [
            _headline(summary, found),
            _table(summary, pictures.epsilon_255),
            _victims(summary),
            _pairs(pictures),
            _noise(summary),
            _clusters(summary, pictures),
            _features(pictures),
            _meaning(),
            _reproduce(summary),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>ucjax report</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _headline(summary: Summary, found: Verdict) -> str:
    kind = {True: "verdict shown", False: "verdict not", None: "verdict"}[found.shown]
    # A number, its spread and its unit stay on one line.
    result = escape(found.result).replace(" ± ", "&nbsp;±&nbsp;").replace(" %", "&nbsp;%")
    rule = verdict.RULE if found.shown is not None else ""
    return (
        "<h1>ucjax · Unlearnable Clusters: what this run found</h1>\n"
        f'<div class="{kind}"><p class="result">{result}</p>'
        f"<p><strong>{escape(found.meaning)}</strong></p>"
        f'<p class="soft">{rule} Keep this page to yourself: it shows clean images and the noise, '
        "with which the protection can be undone.</p></div>"
    )


def _table(summary: Summary, epsilon_255: int) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in tables.HEADER)
    rows = []
    for arm, (name, *cells) in zip(summary.arms, tables.rows(summary), strict=True):
        strong = ' class="strong"' if arm.name == "protected" else ""
        rows.append(
            f"<tr><td{strong}>{_dot(plots.arm_color(arm.name))}{escape(name)}</td>"
            + "".join(f"<td{strong}>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    purity = "" if summary.purity is None else f" (purity {summary.purity:.2f})"
    classes = f" of {len(summary.class_names)} classes" if summary.class_names else ""
    names = ", ".join(summary.class_names)
    return (
        f'<h2>Results</h2>\n<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n"
        f'<p class="soft">{summary.train_count} published images{classes} in '
        f"{len(summary.cluster_sizes)} clusters{purity}; clean test on {summary.test_count} "
        f"images; budget eps = {epsilon_255}/255.</p>"
        + (f"<details><summary>Classes</summary><p>{escape(names)}</p></details>" if names else "")
    )


def _victims(summary: Summary) -> str:
    trained = [arm for arm in summary.arms if arm.victims]
    if not trained:
        return (
            "<h2>Victims</h2>\n<p>None was trained. Labelled images, with some kept for testing, "
            "are needed to measure how well the protection holds.</p>"
        )
    legend = "".join(
        f"<span>{_dot(plots.arm_color(arm.name))}{escape(arm.name.replace('_', ' '))}</span>"
        for arm in trained
    )
    return (
        f'<h2>Victims by epoch</h2>\n<div class="legend">{legend}</div>\n<div class="plots">'
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
        '<h2>Clean and protected</h2>\n<p class="soft">'
        f"Lossless, {tiles.extent(pictures.clean, side)}. "
        "The change is the decoded protected file minus the clean image, on grey, "
        f'amplified {gain:.3g} times.</p>\n<div class="pairs">{"".join(cards)}</div>'
    )


def _noise(summary: Summary) -> str:
    if not summary.noise_loss:
        return ""
    moved = [100 * share for share in summary.noise_moved]
    return (
        '<h2>Learning the noise</h2>\n<div class="plots">'
        + _figure(
            plots.curve(summary.noise_loss, "loss"),
            "Mean distance of the noisy images' features from the wrong centre, by epoch.",
        )
        + _figure(
            plots.curve(moved, "images moved, %"),
            "Share of the training crops whose nearest centre is the wrong one they are sent to.",
        )
        + "</div>"
    )


def _clusters(summary: Summary, pictures: Pictures) -> str:
    sizes = summary.cluster_sizes
    colors = plots.cluster_colors(len(sizes))
    side = tiles.fitting(pictures.noise, _NOISE_PIXELS)
    noise = tiles.amplified(tiles.middle(pictures.noise, side), pictures.epsilon_255)
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
            + tiles.lossless(noise[i], f"noise of cluster {i}")
            + tiles.strip(pictures.examples[i], thumb, f"examples of cluster {i}")
            + "</div>"
        )
    return (
        '<h2>Clusters and their noise</h2>\n<p class="soft">Size, noise '
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


def _reproduce(summary: Summary) -> str:
    environment = _lines({k: v for k, v in summary.environment.items() if k != "command"})
    return (
        '<h2>Reproduce</h2>\n<pre class="command">'
        f"{escape(str(summary.environment.get('command', '')))}</pre>\n"
        f"<details><summary>Config</summary><pre>{_lines(summary.config)}</pre></details>\n"
        f"<details><summary>Environment</summary><pre>{environment}</pre></details>\n"
        '<p class="soft">The numbers of this page, with every epoch of every victim, are in '
        "<code>report.json</code> beside it.</p>"
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
