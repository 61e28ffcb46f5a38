"""Rows and columns of a comparison as strings: one parser, and a printer that is its inverse.

    row     NAME[:key=value]…                            uc   uc:k=20:eps=8   folder=PATH
    column  MODEL[+RECIPE or TREATMENT]…[:key=value]…    resnet18+jpeg75:labels=random-5

A value that holds ":" or "%" spells them "%3A" and "%25" ("folder=C%3A/photos").
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ucjax.errors import UserError

_WORD = re.compile(r"[A-Za-z_][\w.-]*")


@dataclass(frozen=True)
class Name:
    """A parsed row or column.

    Attributes:
      base: the protection or the model.
      value: what follows it as "base=value" (the path of "folder=PATH"); "" for nothing.
      parts: what is joined to it by "+", in order.
      keys: its settings, as given, in the order of their names.
    """

    base: str
    value: str = ""
    parts: tuple[str, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        head = f"{self.base}={_escaped(self.value)}" if self.value else self.base
        settings = (f"{key}={_escaped(value)}" for key, value in self.keys)
        return ":".join(["+".join([head, *self.parts]), *settings])

    def with_key(self, key: str, value: str) -> Name:
        """Returns the name with one more key."""
        return Name(
            self.base,
            self.value,
            self.parts,
            tuple(sorted({**dict(self.keys), key: value}.items())),
        )


def parse(text: str, what: str) -> Name:
    """Reads a row or a column; `str` of the result reads back as equal.

    Args:
      text: the string.
      what: "row" or "column", for the message.

    Raises:
      UserError: it is not of that form, or gives a key twice.
    """
    head, *settings = text.strip().split(":")
    base, equals, value = head.partition("=")
    parts: list[str] = []
    if not equals:
        base, *parts = head.split("+")
    malformed = [word for word in (base, *parts) if not _WORD.fullmatch(word)]
    keys: dict[str, str] = {}
    for setting in settings:
        key, sign, content = setting.partition("=")
        if not sign or not content or not _WORD.fullmatch(key) or key in keys:
            raise UserError(
                f"{what} {text!r}: {setting!r} is no key=value"
                + (", since it is given twice" if key in keys else "")
                + "; a colon in a value is spelt %3A"
            )
        keys[key] = _unescaped(content)
    if malformed or (equals and not value):
        form = "NAME[:key=value]…" if what == "row" else "MODEL[+RECIPE]…[:key=value]…"
        raise UserError(f"{what} {text!r} has no name in {head!r}: it looks like {form}")
    return Name(base, _unescaped(value), tuple(parts), tuple(sorted(keys.items())))


def known(given: str, choices: Iterable[str], what: str) -> str:
    """Returns `given` if it is one of `choices`.

    Raises:
      UserError: it is not; names the near ones, or all.
    """
    names = sorted(choices)
    if given in names:
        return given
    meant = near(given, names)
    hint = f"did you mean {meant}?" if meant else f"choose one of {', '.join(names)}"
    raise UserError(f"unknown {what} {given!r}: {hint}")


def near(given: str, choices: Iterable[str]) -> str:
    """Returns the choices that look like `given`, joined by "or"; "" if none does."""
    names = sorted(choices)
    alike = difflib.get_close_matches(given, names, n=1, cutoff=0.8)  # a typing error
    return " or ".join(alike or difflib.get_close_matches(given, names, n=3, cutoff=0.5))


def typed(text: str, default: Any, what: str) -> Any:
    """Reads a value of the type of `default` (bool, int, float, str).

    Raises:
      UserError: it is of another type.
    """
    kind = type(default)
    if kind is bool and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    try:
        if kind is not bool:
            return kind(text)
    except ValueError:
        pass
    raise UserError(f"{what} is {text!r}: give {_KINDS.get(kind, kind.__name__)}")


_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def _escaped(value: str) -> str:
    return value.replace("%", "%25").replace(":", "%3A")


def _unescaped(value: str) -> str:
    return value.replace("%3A", ":").replace("%3a", ":").replace("%25", "%")
