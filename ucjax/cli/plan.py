"""`ucjax plan`: what a run will cost, before it starts.

With photos alone it is `ucjax protect PHOTOS`; with a config the whole experiment.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ucjax.cli.command import add_config

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `ucjax plan`."""
    parser.add_argument(
        "photos", nargs="?", type=Path, metavar="PHOTOS", help="what would be protected"
    )
    add_config(parser)
    parser.add_argument(
        "--images", type=int, metavar="N", help="assume so many images to protect, look at none"
    )
    parser.add_argument(
        "--no-timing", action="store_true", help="compile, but run nothing on this machine"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(arguments: argparse.Namespace) -> int:
    """Prints the plan; 1 if it says that the run will not fit.

    Raises:
      UserError: neither photos nor a config, or impossible settings.
    """
    from ucjax.errors import UserError
    from ucjax.planning import files, plan, schedule
    from ucjax.runtime import parallel

    if arguments.photos is None and arguments.config is None:
        raise UserError("what shall be planned? Give a folder of photos, or --config=FILE")
    protecting = arguments.config is None
    config = _config(arguments)
    assumed = None
    if arguments.images is not None:
        assumed = schedule.assume(config, arguments.images)
    # For its compilation cache: the next plan of the same steps is there at once.
    parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
    made = plan.make(
        config,
        assumed=assumed,
        listed=files.photos(arguments.photos) if protecting and assumed is None else None,
        run=not arguments.no_timing,
        say=functools.partial(print, file=sys.stderr, flush=True),
    )
    if arguments.json:
        print(json.dumps(dataclasses.asdict(made), indent=2))
    else:
        print(plan.text(made))
    return 1 if made.problems else 0


def _config(arguments: argparse.Namespace) -> ConfigDict:
    from ucjax.cli import settings
    from ucjax.config import OWNERS_ROW
    from ucjax.data.folder import walk

    if arguments.config is None:
        count = arguments.images or len(walk(arguments.photos))
        protecting = {"protections": (OWNERS_ROW,), "victims": ()}
        return settings.load(None, arguments.overrides, photos=count, row=OWNERS_ROW, **protecting)
    options: dict[str, Any] = {}
    if arguments.photos:
        options = {"data__source": "folder", "data__root": str(arguments.photos)}
    return settings.load(arguments.config, arguments.overrides, **options)
