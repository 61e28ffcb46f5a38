"""What an exploiter may do to every picture, in training and in use, to be rid of the noise.

JPEG and greyscale are the two halves of "image shortcut squeezing" (arXiv:2301.13838), which
compresses harder; quality 75 is what happens to pictures on the web anyway.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial

from PIL import Image

from ucjax.data.decode import decode
from ucjax.data.images import Item


def _jpeg(picture: Image.Image, quality: int) -> Image.Image:
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=quality)
    return Image.open(encoded)


def _grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


DEFENCES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg75": partial(_jpeg, quality=75),
    "grey": _grey,
}


def defend(item: Item, defence: str) -> Item:
    """Returns the item as the exploiter sees it: treated at its own size, before any resizing."""

    def treated() -> Image.Image:
        with item.open() as image:
            return DEFENCES[defence](decode(image))

    return Item(item.name, treated, item.label, f"{item.content_key}-{defence}")
