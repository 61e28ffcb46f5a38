"""Protects a folder of photographs from Python, checks the copies, and looks at one.

    python examples/protect_folder.py PHOTOS OUT

Settings are keys of `ucjax/config.py` with "__" for dots, such as noise__epsilon_255=8.
"""

from __future__ import annotations

import sys
from typing import Any

import ucjax


def main(photos: str, out: str, **settings: Any) -> None:
    """Writes protected copies of `photos` to `out`; stops if a check finds a fault."""
    done = ucjax.protect(photos, out, **settings)
    print(done)
    for name, reason in (*done.unlisted, *done.written.failures):
        print(f"not protected: {name}: {reason}")

    checked = ucjax.verify(out, photos)
    print(checked)
    if checked.failures:
        sys.exit("do not publish these copies")

    # The noise is of the clusters: other photographs get it without training.
    again = ucjax.load(f"{out}/protector")
    print(f"keep {done.place} private, it undoes the protection: {again}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
