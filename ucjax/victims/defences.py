"""Training and test pictures as an exploiter makes them before training: a column's treatments."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from PIL import Image

from ucjax.data.decode import decode
from ucjax.data.images import Item
from ucjax.errors import UserError
from ucjax.victims import table
from ucjax.victims.contract import Change


def defend(item: Item, treated: tuple[str, ...]) -> Item:
    """Returns the item as the exploiter sees it: treated at its own size, before any resizing.

    Args:
      item: a picture.
      treated: treatments by their names, applied in this order; none leaves the item as it is.

    Raises:
      UserError: an unknown treatment.
    """
    if not treated:
        return item
    parts = [table.treatment(part) for part in treated]
    makers = [(table.TREATMENTS[word].make, number) for word, number in parts]
    changes = [make(number) for make, number in makers if make is not None]
    if len(changes) < len(parts):
        raise UserError(f"{'+'.join(treated)} is learned from a training set, not from a picture")

    def open_() -> Image.Image:
        picture = _decoded(item)
        for change in changes:
            picture = change(picture)
        return picture

    return Item(item.name, open_, item.label, "-".join([item.content_key, *treated]))


def defend_all(
    items: Sequence[Item],
    labels: np.ndarray,
    treated: tuple[str, ...],
    clean: Sequence[Item] = (),
) -> list[Item]:
    """Returns the training items `[n]` as `defend`, and what is learned from all of them done.

    It is learned when the first of them is opened, from pictures treated as those before it.

    Args:
      items: the pictures.
      labels: of the pictures, int32 `[n]`.
      treated: treatments by their names, applied in this order.
      clean: the same n pictures without protection, of which a leak shows some.

    Raises:
      UserError: an unknown treatment, or one that needs clean pictures and has none.
    """
    for part in treated:
        word, number = table.treatment(part)
        entry = table.TREATMENTS[word]
        if entry.learn is not None:
            items = _learned(items, labels, part, partial(_learn, entry.learn, labels, number))
        elif entry.leak is not None:
            if len(clean) != len(items):
                raise UserError(f"{part} needs a clean picture of each protected one")
            items = _learned(items, labels, part, partial(_leak, entry.leak, clean, number), clean)
        else:
            items = [defend(item, (part,)) for item in items]
    return list(items)


def _learn(
    learn: Callable[..., Change], labels: np.ndarray, number: int | None, items: Sequence[Item]
) -> Change:
    return learn(_openers(items), labels, number)


def _leak(
    leak: Callable[..., Change], clean: Sequence[Item], number: int | None, items: Sequence[Item]
) -> Change:
    return leak(_openers(items), _openers(clean), number)


def _openers(items: Sequence[Item]) -> list[Callable[[], Image.Image]]:
    return [partial(_decoded, item) for item in items]


def _learned(
    items: Sequence[Item],
    labels: np.ndarray,
    part: str,
    learn: Callable[[Sequence[Item]], Change],
    clean: Sequence[Item] = (),
) -> list[Item]:
    seen = [[item.name, item.content_key] for item in (*items, *clean)]
    mark = hashlib.sha256(json.dumps([seen, labels.tolist()]).encode()).hexdigest()[:16]
    lock, known = threading.Lock(), list[Change | UserError]()

    def opened(item: Item) -> Image.Image:
        with lock:
            if not known:
                known.append(_outcome(part, lambda: learn(items)))
        if isinstance(known[0], UserError):
            raise known[0]
        return known[0](_decoded(item))

    return [
        Item(item.name, partial(opened, item), item.label, f"{item.content_key}-{part}-{mark}")
        for item in items
    ]


def _outcome(part: str, learn: Callable[[], Change]) -> Change | UserError:
    """Learns; a failure is not that of the picture which happened to be opened first."""
    try:
        return learn()
    except UserError as error:
        return error
    except Exception as error:
        failed = UserError(f"+{part} cannot be learned here: {type(error).__name__}: {error}")
        failed.__cause__ = error
        return failed


def _decoded(item: Item) -> Image.Image:
    with item.open() as image:
        return decode(image)
