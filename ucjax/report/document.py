"""One HTML file that needs nothing else: templates that escape all they are given, and its writing.

Names are shown as a terminal would print them (`errors.printable`), then escaped; a policy in the
page forbids every script but ours, and anything from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ucjax.errors import UserError, printable
from ucjax.report.stylesheet import CSS
from ucjax.runtime import disk

_TEMPLATES = Path(__file__).with_name("templates")
_HEAD = "<!DOCTYPE html>\n<!-- ucjax page "
_MARK = re.compile(re.escape(_HEAD.encode()) + rb"([a-z]+) ([0-9a-f]*) -->")
_MODE = 0o600  # photographs are on the page, and what undoes their protection


def _shown(value: Any) -> Any:
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_shown,
)
_ENVIRONMENT.filters["decibels"] = lambda psnr: f"{psnr:.1f} dB" if math.isfinite(psnr) else "∞ dB"


def render(template: str, *, title: str, digest: str = "", **values: Any) -> str:
    """Returns a page; equal values give equal text.

    Args:
      template: a file of `templates/` without its ending, which is the page's kind.
      title: of the page.
      digest: of what the page is made from, in hex, for `digest_of`.
      values: what the template names; text is escaped unless it is `Markup`.
    """
    script = (_TEMPLATES / "slider.js").read_text(encoding="utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _ENVIRONMENT.get_template(f"{template}.html").render(
        title=title,
        head=Markup(f"{_HEAD}{template} {digest} -->"),
        css=Markup(CSS),
        script=Markup(script),
        allowed=allowed,
        **values,
    )


def write(path: Path, text: str) -> None:
    """Writes a page whole, readable by its owner alone.

    Raises:
      UserError: there is something of this name that is no page of this kind.
      DiskError: it cannot be written.
    """
    mark = _MARK.match(text.encode())
    assert mark is not None, "of `render`"
    check_place(path, mark[1].decode())
    disk.write_bytes(path, text.encode(), mode=_MODE)


def check_place(path: Path, kind: str) -> None:
    """Raises `UserError` if something lies at `path` that is no page of this kind of ours."""
    if (path.exists() or path.is_symlink()) and digest_of(path, kind) is None:
        raise UserError(
            f"{path} is there already, and no such page of ucjax: move it away, or choose another "
            "place"
        )


def digest_of(path: Path, kind: str) -> str | None:
    """Returns what a page of ours of this kind was made from, None if there is no such page."""
    try:
        found = _MARK.match(disk.read_regular(path, path.parent))
    except OSError:
        return None
    return found[2].decode() if found and found[1] == kind.encode() else None
