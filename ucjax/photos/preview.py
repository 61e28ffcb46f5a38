"""A few of an owner's photographs at several budgets, side by side, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from ucjax import config as settings
from ucjax import names
from ucjax.data import decode
from ucjax.data import folder as folders
from ucjax.data.rows import BAND, Hold, in_memory, one_large
from ucjax.errors import UserError
from ucjax.files import copies, picture
from ucjax.files.fidelity import Fidelity, compare
from ucjax.files.manifest import Failure
from ucjax.files.picture import Encoding, Picture, UnreadableError
from ucjax.photos import regions
from ucjax.protections import controls, gratings, table
from ucjax.protections.noise import Patterns, Pixels, on_whole
from ucjax.protections.waves import Gratings

COUNT = 6
ROWS = tuple(gratings.STRENGTHS.values())
_MOST_ROWS = 3
_ABOUT = {
    "chroma": "A wave of colour per cluster, without training",
    "luma": "A wave of brightness per cluster, without training",
    "all": "A wave of colour and brightness per cluster, without training",
}
_MOST = 24  # photographs: a page of more is no preview, and too large for a browser
CROP, WHOLE = 208, 400  # pixels a side of what is shown 1:1, and the longest of what is reduced
# Larger pictures are encoded in part, to say how large the file will be.
_ENCODED_PIXELS = 1_000_000


class Budget(NamedTuple):
    """A noise to look at."""

    title: str
    row: str  # of the table
    epsilon_255: int
    patterns: Patterns
    about: str


class Version(NamedTuple):
    """A photograph with a noise."""

    fidelity: Fidelity
    size: int  # bytes of the file, estimated for large pictures
    whole: np.ndarray  # uint8 [h, w, 3]
    crops: tuple[np.ndarray, ...]  # uint8 [side, side, 3]


class Shown(NamedTuple):
    """A photograph, clean and with each noise."""

    name: str
    width: int
    height: int
    size: int  # bytes of its file
    whole: np.ndarray  # clean, reduced, uint8 [h, w, 3]
    crops: tuple[np.ndarray, ...]  # clean, the flattest square first, uint8 [side, side, 3]
    icc: bytes | None  # profile of the colours
    versions: tuple[Version, ...]  # one a budget


class Preview(NamedTuple):
    """What a page shows of a folder."""

    shown: tuple[Shown, ...]
    failures: tuple[Failure, ...]
    found: int  # photographs in the folder
    budgets: tuple[Budget, ...]


def preview(
    photos: Path,
    *,
    count: int = COUNT,
    rows: Sequence[str] = ROWS,
    threads: int | None = None,
) -> Preview:
    """Puts some gratings, and random noise of the largest budget, on photographs of a folder.

    Which wave a photograph gets once it is protected depends on its cluster; here each shown one
    has a wave of its own. Nothing is written.

    Args:
      photos: the folder.
      count: how many, spread over the folder.
      rows: of the table, up to three, such as "gratings:eps=8"; others need training.
      threads: None for one a processor.

    Raises:
      UserError: there are none, none can be read, or a number is out of range.
    """
    listed = chosen(photos, count)
    made = budgets(rows, len(listed))

    def look(index: int) -> Shown | Failure:
        name = listed[index]
        try:
            clean, size = read(photos / name)
            with one_large(clean.pixels.nbytes):
                return _look(name, size, clean, made, index)
        except (UnreadableError, decode.RefusedError) as error:
            return name, str(error)

    with decode.without_warnings(), ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        results = list(pool.map(look, range(len(listed))))
    shown = tuple(result for result in results if isinstance(result, Shown))
    failures = tuple((r[0], r[1]) for r in results if not isinstance(r, Shown))
    if not shown:
        name, reason = failures[0]
        raise UserError(f"none of {len(failures)} photos can be read, first {name}: {reason}")
    return Preview(shown, failures, len(folders.walk(photos)), made)


def chosen(photos: Path, count: int) -> list[str]:
    """Returns the names of up to `count` photographs, spread evenly over a folder.

    Raises:
      UserError: there are none, or the count is out of range.
    """
    if not photos.is_dir():
        raise UserError(f"{photos} is not a folder: give the folder of your photos")
    if not 1 <= count <= _MOST:
        raise UserError(f"--count is {count}: from 1 to {_MOST}")
    found = folders.walk(photos)
    if not found:
        types = " ".join(extension[1:] for extension in folders.EXTENSIONS)
        raise UserError(f"no pictures under {photos} (looked for {types})")
    places = np.linspace(0, len(found) - 1, min(count, len(found))).round().astype(int)
    return [found[place] for place in places]


def budgets(rows: Sequence[str], count: int) -> tuple[Budget, ...]:
    """Returns rows of gratings, and what stands for `uc`, for `count` photographs.

    Raises:
      UserError: no row, too many, or one that cannot be seen before it is trained.
    """
    if not 1 <= len({*rows}) <= _MOST_ROWS:
        raise UserError(f"--rows has {len({*rows})} rows: give 1 to {_MOST_ROWS}")
    config = settings.photos(count)
    found = [_gratings(row, count, config) for row in dict.fromkeys(rows)]
    seed, short_side, crop = config.noise_seeds[0], config.data.short_side, config.data.crop
    largest = max(budget.epsilon_255 for budget in found)
    signs = controls.cluster_signs(seed, count, crop, largest, grain=config.noise.grain)
    random = Pixels(signs.__getitem__, crop, short_side, largest)
    about = "A fixed random pattern, in place of the noise of uc, which is still to be trained"
    return (*found, Budget(f"random pattern, eps={largest}", "uc", largest, random, about))


def _gratings(text: str, count: int, shared: ConfigDict) -> Budget:
    row = names.parse(text, "row")
    config, options = table.resolve(row, shared)
    if row.base != "gratings":
        raise UserError(f"--rows {text}: only rows of gratings are drawn without training")
    eps = gratings.check(config, options)
    carriers = gratings.draw(config.noise_seeds[0], count, options["bands"], options["color"])
    waves = Gratings(carriers, eps, config.data.short_side, options["wave"])
    return Budget(text, text, eps, waves, _ABOUT[options["color"]])


def read(path: Path, hold: Hold = in_memory) -> tuple[Picture, int]:
    """Returns a photograph, its pixels as `hold` returns them, and the bytes of its file.

    Raises:
      UnreadableError: it cannot be read; says why.
    """
    try:
        data, _ = decode.read_file(path)
    except OSError as error:
        raise UnreadableError(error.strerror or "not a picture") from error
    except Exception as error:  # the header of a giant
        raise UnreadableError(" ".join(str(error).split()) or type(error).__name__) from error
    return picture.read_as(hold, data), len(data)


def _look(
    name: str,
    size: int,
    clean: Picture,
    made: Sequence[Budget],
    row: int,
) -> Shown:
    height, width, _ = clean.pixels.shape
    squares = regions.squares(clean.pixels, CROP)
    versions = []
    for budget in made:
        noised = replace(clean, pixels=on_whole(budget.patterns, row, clean.pixels))
        measured = compare(clean.pixels, noised.pixels)
        whole, crops = _views(noised, squares)
        encoding = Encoding("auto").chosen(isinstance(budget.patterns, Gratings)).of(name)
        versions.append(Version(measured, _size(clean, noised.pixels, encoding), whole, crops))
    whole, crops = _views(clean, squares)
    return Shown(name, width, height, size, whole, crops, clean.icc, tuple(versions))


def _views(
    shown: Picture, squares: Sequence[tuple[int, int, int]]
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Returns a picture reduced to a page, and some of its squares as they are."""
    image = shown.on_white()
    pixels = np.asarray(image)
    if (longest := max(image.size)) > WHOLE:
        width, height = (max(1, round(side * WHOLE / longest)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image), tuple(regions.cut(pixels, square).copy() for square in squares)


def _size(clean: Picture, pixels: np.ndarray, encoding: Encoding) -> int:
    """Returns the bytes of a copy; of a large picture from bands spread over it."""
    height, width, _ = pixels.shape
    step = height * width // _ENCODED_PIXELS
    if step < 2:
        return len(copies.encoded(clean, pixels, encoding))
    rows = np.arange(height) // BAND % step == 0
    alpha = None if clean.alpha is None else clean.alpha[rows]
    part = replace(clean, pixels=clean.pixels[rows], alpha=alpha)
    data = copies.encoded(part, pixels[rows], encoding)
    return round(len(data) * height / int(rows.sum()))
