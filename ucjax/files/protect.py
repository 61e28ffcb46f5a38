"""Images and noise in, files out: 8 bits by rounding, measured after re-reading.

The protected images and every control arm are written here, so that all arms share one geometry.
Needs no JAX. One process at a time may write to a folder (its format: `ucjax.files.manifest`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import UnidentifiedImageError

from ucjax.data import decode
from ucjax.data.images import ImageSet, Progress
from ucjax.errors import UserError
from ucjax.files import picture
from ucjax.files.copies import Noised, Source
from ucjax.files.manifest import ProtectedSet, items_of, load
from ucjax.files.picture import PNG, Encoding, Picture, UnreadableError
from ucjax.files.writer import Task, run, sha256
from ucjax.protections.noise import Noise, on_whole

if TYPE_CHECKING:
    from ucjax.protections.protector import Protector

__all__ = ["ProtectedSet", "items_of", "load", "protect_files", "protect_images"]


# Noise shrunk to fewer pixels averages to nothing: the copy would be the original.
_SMALLEST_SIDE = 8


def protect_images(
    images: ImageSet,
    *,
    root: Path | None,
    noise: Noise,
    crop: int,
    folder: Path,
    label: str,
    encoding: Encoding = PNG,
    threads: int | None = None,
    progress: Callable[[str, int], Progress] | None = None,
) -> ProtectedSet:
    """Writes all images plus their noise: their centre crops, or their files at their own size.

    The crops are the paper's published files. On whole files the noise is enlarged so that a
    victim that resizes them as `images` were, and crops their centre, sees it (`placement.placed`).
    A killed call is continued by the next one and ends with the same bytes; a finished folder
    costs nothing.

    Args:
      images: n images.
      root: the folder that the images' names are relative to, for whole files; None for crops.
      noise: of the images, with the budget that every written file is held to.
      crop: pixels.
      folder: created if missing.
      label: a word for the progress, such as "uc".
      encoding: of the written files, the same for all rows that are compared.
      threads: None for one a processor.
      progress: receives (label, n), returns what is updated (None: silence).

    Raises:
      UserError: the folder holds other images than these, or cannot be written.
      ValueError: noise of another shape, or a written file over the budget.
    """

    def read(index: int) -> Source:
        if root is not None:
            return _read_file(root / images.names[index])
        pixels = images.center_crops(crop, [index])[0]
        return Source(sha256(pixels.data), pixels.nbytes, lambda hold: Picture(pixels))

    def plus(index: int, clean: Picture) -> Noised:
        return Noised(
            noise.add(index, clean.pixels, whole=root is not None),
            noise.cluster(index),
            noise.sha256(index),
        )

    task = Task(
        names=images.names,
        labels=images.labels.tolist(),
        class_names=tuple(images.class_names),
        read=read,
        add=plus,
        noise_sha256=noise.sha256,
        job=_job(images, noise, "crop" if root is None else "native", crop, encoding),
        encoding=encoding,
        epsilon_255=noise.epsilon_255,
        norm=noise.norm,
        folder=folder,
    )
    return run(task, label, threads, progress)


def protect_files(
    root: Path,
    names: Sequence[str],
    protector: Protector,
    *,
    labels: Sequence[int],
    class_names: tuple[str, ...],
    cluster_of: Callable[[np.ndarray], int],
    protector_sha256: str,
    encoding: Encoding,
    refused: Callable[[str], str],
    folder: Path,
    keep: Collection[str] = (),
    unlisted: Collection[str] = (),
    threads: int | None = None,
    progress: Callable[[str, int], Progress] | None = None,
) -> ProtectedSet:
    """Writes the files `root / name` at their own size plus the noise that their content asks for.

    In contrast to `protect_images`, nothing needs to be known of the pictures before: the folder
    may grow between two calls, and what cannot be protected is counted in the summary. Memory
    does not grow with their number.

    Args:
      root: the folder of the originals; nothing in it is changed.
      names: relative to `root`, posix.
      protector: its budget, which JPEG does not keep, and geometry.
      labels: `[n]`, -1 where unknown.
      class_names: what the labels mean.
      cluster_of: the upright centre crop, uint8 `[crop, crop, 3]` -> its cluster; called from
        threads, for pictures that are in none of the protector's folders.
      protector_sha256: identifies the noise; another one is another folder's.
      encoding: of the written files.
      refused: sha256 of a source -> why it must not be protected, or nothing.
      folder: created if missing.
      keep: metadata to keep beyond the list (`metadata.KEEPABLE`).
      unlisted: folders below `root` that could not be searched: their pictures' copies stay.
      threads: None for one a processor.
      progress: receives ("protecting", n), returns what is updated (None: silence).

    Raises:
      UserError: the folder was made with other settings, or cannot be written.
    """
    patterns, by_folder = protector.patterns(), _by_folder(protector, labels, class_names)

    def read(index: int) -> Source:
        source = _read_file(root / names[index], keep)
        if reason := refused(source.sha256):
            raise UnreadableError(reason)
        return source

    def plus(index: int, clean: Picture) -> Noised:
        _check_side(clean)
        cluster = by_folder[index]
        if cluster is None:
            cluster = cluster_of(center_crop(clean, protector))
        noised = on_whole(patterns, cluster, clean.pixels)
        return Noised(noised, cluster, patterns.sha256(cluster))

    task = Task(
        names=names,
        labels=labels,
        class_names=class_names,
        read=read,
        add=plus,
        noise_sha256=lambda i: None if (c := by_folder[i]) is None else patterns.sha256(c),
        job=_job_of(protector, protector_sha256, encoding, keep),
        encoding=encoding,
        epsilon_255=protector.epsilon_255,
        norm=protector.norm,
        folder=folder,
        keep_going=True,
        photos=root,
        unlisted=unlisted,
    )
    return run(task, "protecting", threads, progress)


def center_crop(clean: Picture, protector: Protector) -> np.ndarray:
    """Returns what the protector's surrogate sees of a picture, uint8 `[crop, crop, 3]`."""
    height, width, _ = clean.pixels.shape
    small = clean.reduced(decode.resized((width, height), protector.short_side))
    top, left = (round((side - protector.crop) / 2) for side in small.shape[:2])
    return small[top : top + protector.crop, left : left + protector.crop]


def _by_folder(
    protector: Protector, labels: Sequence[int], class_names: tuple[str, ...]
) -> list[int | None]:
    """Returns the cluster of each picture in a folder that the protector knows, else None."""
    own = {folder: cluster for cluster, folder in enumerate(protector.folders)}
    return [own.get(class_names[label]) if label >= 0 else None for label in labels]


def _job_of(
    protector: Protector, digest: str, encoding: Encoding, keep: Collection[str]
) -> dict[str, object]:
    return {
        "geometry": "native",
        **{
            key: getattr(protector, key)
            for key in ("kind", "epsilon_255", "norm", "grain", "crop", "short_side")
        },
        "surrogate": protector.surrogate_name,
        "protector_sha256": digest,
        **dataclasses.asdict(encoding),
        "keep": sorted(keep),
    }


def _check_side(clean: Picture) -> None:
    height, width, _ = clean.pixels.shape
    if min(height, width) < _SMALLEST_SIDE:
        raise UnreadableError(f"{width} x {height} pixels: too small to carry noise")


def _read_file(path: Path, keep: Collection[str] = ()) -> Source:
    try:
        data, status = decode.read_file(path)
    except UnidentifiedImageError as error:  # which Pillow counts as an error of the system
        raise UnreadableError("not a picture, or of a kind that is not read") from error
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    except decode.RefusedError as error:
        raise UnreadableError(str(error)) from error
    except Exception as error:  # the header of a giant
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableError(f"damaged ({reason})") from error
    once = [data]  # which nothing keeps in memory once it is decoded
    return Source(
        sha256(data),
        len(data),
        lambda hold: picture.read_as(hold, once.pop(), keep=keep),
        mode=status.st_mode & 0o777 | 0o600,
        decoded_bytes=picture.decoded_bytes(data),
    )


def _job(
    images: ImageSet, noise: Noise, geometry: str, crop: int, encoding: Encoding
) -> dict[str, object]:
    """Returns what decides the content of a folder."""
    if not len(images):
        raise UserError("there are no images to protect: the source is empty")
    assigned = None if noise.clusters is None else noise.clusters.tolist()
    classes = [images.class_names[label] if label >= 0 else None for label in images.labels]
    listed = json.dumps([images.names, classes, assigned])
    return {
        "geometry": geometry,
        "epsilon_255": noise.epsilon_255,
        "norm": noise.norm,
        "crop": crop,
        "short_side": images.short_side,
        "images": len(images),
        "images_sha256": sha256(listed.encode()),
        "first_noise_sha256": noise.sha256(0),
        **dataclasses.asdict(encoding),
    }
