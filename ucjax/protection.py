"""Images and noise in, files out: lossless PNG, 8 bits by rounding, measured after re-reading.

The protected images and every control arm are written here, so that all arms share one geometry.
Needs no JAX. One process at a time may write to a folder (see `ucjax.protected` for its format).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ucjax.data.images import ImageSet, Progress
from ucjax.errors import UserError
from ucjax.placement import enlarge, within_budget
from ucjax.protected import ProtectedSet, items_of, load
from ucjax.writer import Source, Task, decoded, run, sha256

__all__ = ["ProtectedSet", "items_of", "load", "protect_crops", "protect_native"]


def protect_crops(
    images: ImageSet,
    *,
    noise_of: Callable[[int], np.ndarray],
    epsilon_255: int,
    norm: str,
    crop: int,
    clusters: np.ndarray | None,
    folder: Path,
    label: str,
    threads: int | None = None,
    progress: Callable[[str, int], Progress] | None = None,
) -> ProtectedSet:
    """Writes the centre crops of all images plus their noise (the paper's published files).

    A killed call is continued by the next one and ends with the same bytes; a finished folder
    costs nothing.

    Args:
      images: n images.
      noise_of: index -> float32 `[crop, crop, 3]`, pixels of [0, 1]; called from threads.
      epsilon_255: the budget that every written file is held to.
      norm: "linf" or "l2" (see `Protector`).
      crop: pixels.
      clusters: `[n]`, for the manifest.
      folder: created if missing.
      label: a word for the progress, such as "protected".
      threads: None for one a processor.
      progress: receives (label, n), returns what is updated (None: silence).

    Raises:
      UserError: the folder holds other images than these, or cannot be written.
      ValueError: noise of another shape, or a written file over the budget.
    """

    def read(index: int) -> Source:
        pixels = images.center_crops(crop, [index])[0]
        return Source(sha256(pixels.data), lambda: pixels)

    task = Task(
        images=images,
        clusters=clusters,
        read=read,
        noise_of=noise_of,
        fit=lambda index, noise, size: noise,
        geometry="crop",
        epsilon_255=epsilon_255,
        norm=norm,
        crop=crop,
        folder=folder,
    )
    return run(task, label, threads, progress)


def protect_native(
    root: Path,
    images: ImageSet,
    *,
    noise_of: Callable[[int], np.ndarray],
    epsilon_255: int,
    norm: str,
    crop: int,
    clusters: np.ndarray | None,
    folder: Path,
    label: str,
    threads: int | None = None,
    progress: Callable[[str, int], Progress] | None = None,
) -> ProtectedSet:
    """Writes the original files `root / name` at their own size plus their noise.

    The noise is enlarged so that a victim that resizes the written files as `images` were, and
    crops their centre, sees it (`placement.enlarge`). Everything else is as in `protect_crops`.
    """

    def read(index: int) -> Source:
        path = root / images.names[index]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error
        return Source(sha256(data), lambda: decoded(data, path))

    def fit(index: int, noise: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        height, width, _ = images.image(index).shape
        return within_budget(enlarge(noise, (height, width), size), epsilon_255, norm)

    task = Task(
        images=images,
        clusters=clusters,
        read=read,
        noise_of=noise_of,
        fit=fit,
        geometry="native",
        epsilon_255=epsilon_255,
        norm=norm,
        crop=crop,
        folder=folder,
    )
    return run(task, label, threads, progress)
