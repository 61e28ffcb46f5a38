"""`ucjax verify OUT --against PHOTOS`: believes the files only, and imports nothing of jax."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("out", metavar="OUT", type=Path, help="what ucjax protect wrote")
    parser.add_argument(
        "--against", metavar="PHOTOS", type=Path, required=True, help="folder of the originals"
    )
    parser.add_argument(
        "--protector",
        metavar="FOLDER",
        type=Path,
        help="whose budget counts (default OUT/protector, if it is there)",
    )
    parser.add_argument(
        "--max-megapixels", type=float, metavar="M", help="refuse larger pictures (default 200)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    parser.add_argument("--threads", type=int, metavar="N", help="default one a processor")


def run(arguments: argparse.Namespace) -> int:
    """Checks the folder; returns 1 if anything is off."""
    from ucjax.data import decode
    from ucjax.errors import UserError, printable
    from ucjax.files import verification

    if arguments.threads is not None and arguments.threads < 1:
        raise UserError(f"--threads is {arguments.threads}: at least 1")
    if arguments.max_megapixels is not None:
        decode.set_max_megapixels(arguments.max_megapixels)
    found = verification.verify_folder(
        arguments.out,
        arguments.against,
        protector=arguments.protector,
        threads=arguments.threads,
    )
    if arguments.json:
        print(json.dumps(asdict(found), indent=2))
        return 1 if found.failures else 0
    for note in found.notes:
        print(f"note: {printable(note)}")
    for failure in found.failures:
        print(f"wrong: {printable(failure)}")
    if found.cue:
        print(
            f"{found.cue.held} of {found.cue.files} JPEG files hold 85 % of their wave or more "
            f"(median {found.cue.median:.0%}, least {found.cue.least:.0%})"
        )
    print(
        f"{found.files} files, {len(found.failures)} faults; no pixel changed by more than "
        f"{found.max_delta_255} of 255"
        if not found.failures
        else f"{found.files} files, {len(found.failures)} faults"
    )
    return 1 if found.failures else 0
