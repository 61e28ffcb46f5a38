"""What the functions of `ucjax.api` take and return; results are shown in short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ucjax.comparison.table import Table
from ucjax.comparison.verdict import Verdict
from ucjax.data.decode import decode, open_file
from ucjax.errors import UserError
from ucjax.files import manifest as protected
from ucjax.photos.protect import Protection
from ucjax.protections.protector import Protector
from ucjax.report import notebook, tables


class Array(Protocol):
    """An array of any library, which NumPy can read."""

    def __array__(self, *args: Any, **options: Any) -> np.ndarray:
        """Returns it as NumPy's."""

    def __len__(self) -> int:
        """Returns the length of its first axis."""

    def __iter__(self) -> Iterator[Any]:
        """Goes along its first axis."""


# One picture a row, or pictures of different sizes: uint8 [h, w, 3] each.
Pictures = Array | Sequence[Array]


class ProtectedImages(NamedTuple):
    """Pictures with their noise, in the order in which they were given."""

    images: list[np.ndarray]  # uint8 [h, w, 3] each, decoded from lossless files
    clusters: np.ndarray  # int32 [n]
    protector: Protector

    def __repr__(self) -> str:
        return f"<ProtectedImages: {len(self.images)} with noise of {self.protector!r}>"

    def _repr_html_(self) -> str:
        counts = np.bincount(self.clusters, minlength=len(self.protector.centers))
        facts = (str(len(self.images)), str(counts), f"{self.protector.epsilon_255}/255")
        lines = [("protected", "images by cluster", "eps"), facts]
        return notebook.pictures(self.images[: notebook.SHOWN], lines)


class ProtectedFolder(Protection):
    """What was written to a folder, shown with a few of its pictures in a notebook."""

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in zip(*self._facts(), strict=True))
        return f"<ProtectedFolder {self.written.folder}: {facts}>"

    def _repr_html_(self) -> str:
        folder = self.written.folder
        shown = protected.read_manifest(folder)[: notebook.SHOWN]
        pictures = [read(folder / protected.IMAGES / record["output"]) for record in shown]
        return notebook.pictures(pictures, self._facts())

    def _facts(self) -> list[tuple[str, ...]]:
        written = self.written
        return [
            ("protected", "not", "largest change", "budget", "PSNR", "SSIM"),
            (
                str(written.count),
                str(len(written.failures) + len(self.unlisted)),
                f"{written.max_delta_255}/255",
                f"{self.protector.epsilon_255}/255",
                f"{written.psnr_median:.1f} dB",
                f"{written.ssim_median:.3f}",
            ),
        ]


class Comparison(NamedTuple):
    """A filled table, and what it says in words; `str` gives both as text."""

    table: Table
    verdict: Verdict

    def __str__(self) -> str:
        return tables.said(self.table, self.verdict)

    def __repr__(self) -> str:
        shown = {True: "shown", False: "not shown", None: "cannot be told"}[self.verdict.shown]
        size = f"{len(self.table.lines)} rows × {len(self.table.columns)} columns"
        return f"<Comparison: {size}; protection: {shown}>"

    def _repr_html_(self) -> str:
        return notebook.comparison(self.table, self.verdict)


def pixels_of(picture: Array, number: int) -> np.ndarray:
    """Returns a picture as NumPy's, `number` being its place among those given.

    Raises:
      UserError: it cannot be had, such as an array on a device.
    """
    try:
        return np.asarray(picture)
    except (TypeError, ValueError, RuntimeError) as error:  # on a device that NumPy cannot read
        raise UserError(f"image {number} is no array for NumPy: {error}") from error


def read(path: Path) -> np.ndarray:
    """Returns a file's picture, uint8 `[h, w, 3]`."""
    with open_file(path) as image:
        return np.asarray(decode(image))
