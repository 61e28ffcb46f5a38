"""`ucjax preview PHOTOS`: how would my photographs look?"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of the originals")
    parser.add_argument(
        "--count", type=int, default=6, metavar="N", help="photographs to show (default 6)"
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        help="up to three rows of gratings, as --protection of ucjax protect takes them (default "
        "those of its --strength subtle, balanced and strong)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("preview.html"),
        metavar="PAGE",
        help="where to write the page (default preview.html)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default one a processor")
    parser.add_argument(
        "--max-megapixels", type=float, metavar="M", help="refuse larger pictures (default 200)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes the page; returns 3 if some of the chosen pictures cannot be read."""
    from ucjax.data import decode
    from ucjax.errors import UserError, printable
    from ucjax.photos import measured, preview
    from ucjax.report import document, previews, tables

    if arguments.threads is not None and arguments.threads < 1:
        raise UserError(f"--threads is {arguments.threads}: at least 1")
    if arguments.max_megapixels is not None:
        decode.set_max_megapixels(arguments.max_megapixels)
    document.check_place(arguments.out, "preview")
    found = preview.preview(
        arguments.photos,
        count=arguments.count,
        rows=arguments.rows or preview.ROWS,
        threads=arguments.threads,
    )
    previews.write(found, arguments.photos, arguments.out)
    for name, reason in found.failures:
        print(f"not shown: {printable(name)}: {printable(reason)}")
    print("\n".join([*tables.aligned(previews.text(found)), "", measured.STATE]))
    print(f"look at {printable(str(arguments.out))}, and keep it to yourself")
    return 3 if found.failures else 0
