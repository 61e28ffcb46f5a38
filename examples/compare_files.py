"""Compares protected files of any tool with the originals, by victims that train on either.

    python examples/compare_files.py CLEAN THEIRS

Both folders hold one sub-folder per class, and files of the same names.
"""

from __future__ import annotations

import sys
from typing import Any

import ucjax
from ucjax.api import Comparison


def main(clean: str, theirs: str, **settings: Any) -> Comparison:
    """Prints the table of `theirs` beside its controls, and what it shows."""
    found = ucjax.compare(
        clean,
        {"theirs": theirs},
        protections=["clean", "random"],  # random: noise as such, which costs a victim something
        **settings,
    )
    print(found)
    for entry in found.table.entries:
        chance = found.table.column(entry.column).chance
        print(f"{entry.label:<8} {entry.column:<10} {entry.mean():.3f} (guessing {chance:.3f})")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:3])
