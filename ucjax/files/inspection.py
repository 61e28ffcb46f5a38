"""What a check finds in and beside the files of a folder: parts, metadata, strangers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image
from safetensors import SafetensorError
from safetensors.numpy import load as parse_safetensors

from ucjax.data import rows
from ucjax.data.decode import open_picture, split
from ucjax.data.rows import Hold, Rows
from ucjax.errors import UserError
from ucjax.files import containers, metadata
from ucjax.protections.waves import Gratings
from ucjax.runtime import disk


class File(NamedTuple):
    """A decoded picture, and what lies beside its pixels."""

    pixels: Rows  # uint8 [h, w, 3]
    alpha: np.ndarray | None  # uint8 [h, w]
    icc: bytes | None  # of RGB values
    color: Mapping[str, bytes]
    faults: tuple[str, ...]  # of the metadata


def look(data: bytes, keep: Collection[str] = (), hold: Hold = rows.in_memory) -> File:
    """Decodes a file.

    Args:
      data: its content.
      keep: metadata that may be in it beyond the list.
      hold: how its pixels are to be held.

    Raises:
      Exception: it is damaged.
    """
    with open_picture(data) as image:
        color, alpha = split(image)
        profile = image.info.get("icc_profile")
        return File(
            pixels=hold(color),
            alpha=None if alpha is None else np.asarray(alpha),
            icc=metadata.icc(profile),
            color=containers.png_color(data) if image.format == "PNG" else {},
            faults=tuple(_faults(image, profile, keep)),
        )


def _faults(image: Image.Image, profile: bytes | None, keep: Collection[str]) -> Iterator[str]:
    """Says what of the metadata would not have been kept."""
    exif = image.getexif()
    if exif.get(ExifTags.Base.Orientation, 1) != 1:
        yield "an order to be rotated, but its pixels are upright"
    for tag in metadata.foreign_tags(image, keep):
        if tag != f"0x{ExifTags.Base.Orientation:04x}":
            yield f"the EXIF tag {tag}, which is not kept"
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    packet = packet.encode() if isinstance(packet, str) else packet
    if packet and packet != metadata.xmp(metadata.rights(image)):
        yield "XMP data beyond the fields about rights, which may hold a thumbnail"
    if metadata.icc(profile) != profile:
        yield "more in its colour profile than is kept"


def strange(data: bytes, file: File) -> list[str]:
    """Returns everything in a protected file that we do not write, in words."""
    return [*containers.strange_parts(data), *file.faults]


def strangers(images: Path, listed: Collection[str]) -> Iterator[str]:
    """Says which files, links and folders below `images` are not in the manifest."""
    unreadable: list[str] = []

    def note(error: OSError) -> None:
        place = Path(str(error.filename)).relative_to(images)
        unreadable.append(f"{place}: cannot be searched: {error.strerror}")

    for folder, subfolders, files in os.walk(images, onerror=note):
        for name in sorted([*subfolders, *files]):
            path = Path(folder) / name
            output = path.relative_to(images).as_posix()
            if path.is_symlink():
                yield f"{output}: is a link"
            elif name in files and output not in listed:
                yield f"{output}: is not in the manifest"
            elif name in files and not path.is_file():
                yield f"{output}: is not a file"
    yield from unreadable


class Stated(NamedTuple):
    """The budget that a protector states, and the hash of its description."""

    epsilon_255: int
    norm: str
    sha256: str


def budget_of(folder: Path) -> Stated:
    """Reads a protector's description without JAX; its noise is not looked at.

    Raises:
      UserError: there is none, or it is damaged or edited.
    """
    path = folder / "protector.json"
    try:
        data = disk.read_regular(path)
        described = json.loads(data)
        seal = described.pop("sha256")
        if seal != hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest():
            raise ValueError("it was edited after it was written")
        epsilon_255, norm = described["epsilon_255"], described["norm"]
        if type(epsilon_255) is not int or not 1 <= epsilon_255 <= 255:
            raise ValueError(f"its budget is {epsilon_255!r}")
        if norm not in ("linf", "rms"):
            raise ValueError(f"its norm is {norm!r}")
    except OSError as error:
        raise UserError(f"no protector at {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} holds no protector ({reason}): fetch it again") from error
    return Stated(epsilon_255, norm, hashlib.sha256(data).hexdigest())


def waves_of(folder: Path) -> Gratings | None:
    """Reads the gratings of a protector without JAX; None if its noise is of another kind.

    Raises:
      UserError: they are damaged, or others than its description says.
    """
    path = folder / "protector.safetensors"
    try:
        described = json.loads(disk.read_regular(folder / "protector.json"))
        if described["kind"] != "gratings":
            return None
        data = disk.read_regular(path)
        if hashlib.sha256(data).hexdigest() != described["tensors_sha256"]:
            raise ValueError("it is not what the description says (sha256)")
        arrays = parse_safetensors(data)
        del arrays["centers"]
        return Gratings.load(arrays, described["epsilon_255"], described["short_side"])
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path} holds no gratings ({reason}): fetch it again") from error
