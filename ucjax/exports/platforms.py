"""What training services take, checked picture by picture before anything is uploaded."""

from __future__ import annotations

from dataclasses import dataclass

from ucjax.data.decode import open_picture
from ucjax.errors import UserError
from ucjax.exports.protected_files import Contents, Picture, ProtectedFiles


@dataclass(frozen=True)
class Limits:
    """Of a service: suffixes in lower case, bytes a picture, pixels a side, the sides' ratio."""

    service: str
    suffixes: tuple[str, ...]
    size: int
    shortest: int
    longest: int
    ratio: float
    pictures: int
    classes: int


def checked(images: ProtectedFiles, contents: Contents, limits: Limits) -> Contents:
    """Yields the pictures, each within the limits.

    Raises:
      UserError: there are too many pictures or classes, or a picture is not taken; naming it, the
        limit and the cure.
    """
    counts = (
        (len(images.pictures), limits.pictures, "pictures"),
        (len(images.class_names), limits.classes, "classes"),
    )
    for count, most, what in counts:
        if count > most:
            raise UserError(f"{count} {what}, and {limits.service} takes {most}: protect fewer")
    for picture, data in contents:
        if problem := _problem(picture, data, limits):
            raise UserError(f"{picture.name} {problem} of {limits.service}")
        yield picture, data


def _problem(picture: Picture, data: bytes, limits: Limits) -> str:
    if picture.suffix not in limits.suffixes:
        known = ", ".join(suffix[1:] for suffix in limits.suffixes)
        return f"is no picture to be uploaded ({known}; protect with --format png): the formats"
    if len(data) > limits.size:
        return (
            f"has {len(data):,} bytes, more than the {limits.size:,} (protect smaller pictures, or "
            "with --format jpeg): the limit"
        )
    try:
        with open_picture(data) as image:
            short, long = sorted(image.size)
    except Exception as error:  # Pillow raises anything for a damaged header
        raise UserError(f"{picture.name} cannot be read: {error}") from error
    if short < limits.shortest or long > limits.longest:
        return (
            f"has {short} to {long} pixels a side, outside of {limits.shortest} to "
            f"{limits.longest} (leave it out): the limits"
        )
    if long > limits.ratio * short:
        return f"has sides of {long} : {short}, beyond {limits.ratio:g} : 1 (crop it): the limit"
    return ""
