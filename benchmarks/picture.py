"""The picture of the README: photographs clean, protected, and their change.

    python -m benchmarks.picture PHOTO... --out docs/images/gratings.png

A square of each, pixel for pixel: reduced, the noise would be averaged away.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ucjax.config import OWNERS_ROW
from ucjax.photos.preview import budgets, read
from ucjax.protections.noise import on_whole
from ucjax.report.tiles import difference

GAP, LABEL, INK, PAPER = 8, 22, (29, 37, 48), (255, 255, 255)


def draw(photos: Sequence[Path], protection: str, side: int) -> Image.Image:
    """Returns a row a photograph: the middle of its upper part, clean, protected and changed."""
    (budget, *_) = budgets([protection], len(photos))
    rows = []
    for number, path in enumerate(photos):
        clean, _ = read(path)
        noised = on_whole(budget.patterns, number, clean.pixels)
        height, width, _ = clean.pixels.shape
        top, left = (height - side) // 3, (width - side) // 2
        square = np.s_[top : top + side, left : left + side]
        rows.append((clean.pixels[square], noised[square]))
    labels = ("clean", f"protected: {protection}", "change, times 8")
    width, height = 3 * side + 2 * GAP, LABEL + len(rows) * (side + GAP) - GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, label in enumerate(labels):
        pen.text((column * (side + GAP), 2), label, INK, font)
    for row, (clean_square, noised_square) in enumerate(rows):
        change = difference(clean_square, noised_square)
        for column, pixels in enumerate((clean_square, noised_square, change)):
            place = (column * (side + GAP), LABEL + row * (side + GAP))
            sheet.paste(Image.fromarray(pixels), place)
    return sheet


def main() -> None:
    """Writes the picture and says how large it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", metavar="PHOTO", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("docs/images/gratings.png"))
    parser.add_argument("--protection", default=OWNERS_ROW)
    parser.add_argument("--side", type=int, default=192)
    arguments = parser.parse_args()
    content = io.BytesIO()
    sheet = draw(arguments.photos, arguments.protection, arguments.side)
    sheet.save(content, "PNG", optimize=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_bytes(content.getvalue())
    print(
        f"{arguments.out}: {sheet.width} × {sheet.height}, {len(content.getvalue()) / 1e3:.0f} kB"
    )


if __name__ == "__main__":
    main()
