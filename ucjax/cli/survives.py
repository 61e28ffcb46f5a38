"""`ucjax survives OUT DOWNLOADED`: what a platform left of the protection."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("out", metavar="OUT", type=Path, help="what ucjax protect wrote")
    parser.add_argument(
        "downloaded",
        metavar="DOWNLOADED",
        type=Path,
        help="folder of files taken back from a platform: resized, recompressed, cut, renamed",
    )
    parser.add_argument(
        "--against",
        metavar="PHOTOS",
        type=Path,
        help="folder of the originals (without it the protector tells what was changed)",
    )
    parser.add_argument(
        "--protector", metavar="FOLDER", type=Path, help="default OUT/protector; not with --against"
    )
    parser.add_argument(
        "--mapping",
        metavar="CSV",
        type=Path,
        help="two columns: file in DOWNLOADED, photo (default: by name, else by picture)",
    )
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write a line a file there")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument(
        "--max-megapixels", type=float, metavar="M", help="refuse larger pictures (default 200)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default one a processor")


def run(arguments: argparse.Namespace) -> int:
    """Measures the files; returns 3 if some of them could not be measured."""
    from ucjax.data import decode
    from ucjax.errors import UserError, printable
    from ucjax.files import survival
    from ucjax.runtime import disk

    if arguments.threads is not None and arguments.threads < 1:
        raise UserError(f"--threads is {arguments.threads}: at least 1")
    if arguments.against and arguments.protector:
        raise UserError("--protector stands in for the originals, and --against gives them")
    if arguments.max_megapixels is not None:
        decode.set_max_megapixels(arguments.max_megapixels)
    patterns = None
    if not arguments.against:
        from ucjax.protections import protector

        patterns = protector.load(arguments.protector or arguments.out / "protector").patterns()
    found = survival.survives(
        arguments.out,
        arguments.downloaded,
        photos=arguments.against,
        patterns=patterns,
        mapping=survival.read_mapping(arguments.mapping) if arguments.mapping else None,
        threads=arguments.threads,
    )
    if arguments.csv:
        disk.write_bytes(arguments.csv, found.csv())
    if arguments.json:
        print(json.dumps({**asdict(found), "sentence": found.sentence()}, indent=2))
        return 3 if found.unmatched else 0
    for left in found.files:
        print(f"{left.cue:5.0%}  {printable(left.file)} ({printable(left.photo)})")
    for name, reason in found.unmatched:
        print(f"not measured: {printable(name)}: {printable(reason)}")
    print(printable(found.sentence()))
    return 3 if found.unmatched else 0
