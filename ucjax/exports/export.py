"""Writes an export beside its destination and renames it, so that a destination is complete."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from glob import escape
from pathlib import Path
from typing import Any, NamedTuple

from ucjax.data.images import Progress
from ucjax.errors import UserError
from ucjax.exports import TARGETS, protected_files

# Says what a destination holds; the loaders of all targets pass over hidden files.
_MARK = ".export.json"


class Exported(NamedTuple):
    """A written export."""

    folder: Path
    images: int
    classes: int
    size: int  # bytes of the images
    reading: str  # the line of Python that opens it


def export(
    folder: Path,
    target: str,
    destination: Path,
    progress: Callable[[str, int], Progress] | None = None,
) -> Exported:
    """Exports a finished folder; one that has been exported there already costs nothing.

    Memory holds the manifest and a few pictures, whatever the folder's size. A killed export
    leaves nothing at the destination, and the next one removes what it left beside it.

    Args:
      folder: what `protect` wrote.
      target: key of `TARGETS`.
      destination: a new or empty folder outside of `folder`.
      progress: receives (label, number of images), returns what is updated (None: silence).

    Raises:
      UserError: unknown target, a package is missing, the folder is unfinished or changed, or
        the destination holds something else or cannot be written.
    """
    if target not in TARGETS:
        raise UserError(f"unknown target {target!r}: choose one of {', '.join(TARGETS)}")
    if destination.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{destination} lies inside {folder}: export to a folder elsewhere")
    try:
        writer = importlib.import_module(f"ucjax.exports.{TARGETS[target]}")
    except ModuleNotFoundError as error:
        raise UserError(f"--to {target} needs {error.name}: pip install 'ucjax[export]'") from error
    images = protected_files.load(folder)
    mark = {"target": target, "images": len(images.pictures), "sha256": _identity(images)}
    if not _holds(destination, mark):
        with _appearing(destination.absolute()) as temporary:
            bar = progress("exporting", len(images.pictures)) if progress else None
            writer.write(images, images.contents(bar), temporary)
            (temporary / _MARK).write_text(json.dumps(mark) + "\n")
    return Exported(
        folder=destination,
        images=len(images.pictures),
        classes=len(images.class_names),
        size=images.size,
        reading=writer.reading(images, destination),
    )


def _identity(images: protected_files.ProtectedFiles) -> str:
    """Returns a hash of all that an export is made from."""
    digest = hashlib.sha256(json.dumps(images.class_names).encode())
    for picture in images.pictures:
        digest.update(json.dumps([picture.output, picture.sha256, picture.label]).encode())
    return digest.hexdigest()


def _holds(destination: Path, mark: dict[str, Any]) -> bool:
    """Whether the export is there already.

    Raises:
      UserError: something else is.
    """
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return False
    try:
        found = json.loads((destination / _MARK).read_bytes())
    except (OSError, ValueError):
        found = None
    if found == mark:
        return True
    what = "an export of other images or to another target" if found else "something else"
    raise UserError(f"{destination} holds {what}: delete it, or choose another folder")


@contextlib.contextmanager
def _appearing(destination: Path) -> Iterator[Path]:
    """Gives an empty folder that takes the name `destination` if the block ends well."""
    temporary = destination.with_name(f".{destination.name}.export-{os.getpid()}")
    try:
        for killed in destination.parent.glob(f".{escape(destination.name)}.export-*"):
            shutil.rmtree(killed)
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(destination)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {destination}: {reason}; then run again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
