"""What a notebook shows of a result: its table, and a few pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image, ImageOps

from ucjax.comparison import verdict
from ucjax.comparison.table import Table
from ucjax.comparison.verdict import Verdict
from ucjax.report import tables, tiles

SHOWN = 6
_SIDE = 128


def comparison(table: Table, found: Verdict) -> str:
    """Returns the table and what it shows, as HTML."""
    said = (found.result, found.meaning, verdict.advice(found, table))
    head = f"<p>{escape(tables.head(table))}</p>"
    cells = grid(tables.accuracies(table)) if table.columns else ""
    return head + cells + grid(tables.facts(table)) + "".join(f"<p>{escape(x)}</p>" for x in said)


def pictures(images: list[np.ndarray], lines: Sequence[tuple[str, ...]]) -> str:
    """Returns the middles of uint8 `[h, w, 3]` pictures side by side over a table, as HTML."""
    squares = [ImageOps.fit(Image.fromarray(x), (_SIDE, _SIDE)) for x in images]
    stacked = np.stack([np.asarray(square) for square in squares])
    alt = f"{len(images)} protected pictures, reduced to {_SIDE} pixels"
    return f"<p>{tiles.strip(stacked, _SIDE, alt)}</p>{grid(lines)}"


def grid(rows: Sequence[tuple[str, ...]]) -> str:
    """Returns rows, the first of them a header, as an HTML table."""
    first, *others = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    head = first.replace("td>", "th>")
    body = "".join(f"<tr>{cells}</tr>" for cells in others)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
