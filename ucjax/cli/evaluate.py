"""`ucjax evaluate PHOTOS OUT`: does it work on MY photos?"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ucjax.cli.command import add_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of the originals")
    parser.add_argument("out", metavar="OUT", type=Path, help="what ucjax protect wrote")
    parser.add_argument("--seeds", type=int, metavar="N", help="victims an arm (default 3)")
    parser.add_argument("--minutes", type=float, default=0.0, metavar="M", help="train no longer")
    parser.add_argument(
        "--arms",
        nargs="+",
        default=["clean", "random", "protected"],
        metavar="ARM",
        help="clean random cluster_random protected (default: all but cluster_random)",
    )
    parser.add_argument(
        "--defences",
        nargs="*",
        default=["jpeg75", "grey"],
        metavar="DEFENCE",
        help="jpeg75 grey (default both; none: --defences alone)",
    )
    parser.add_argument(
        "--labels-by",
        default="",
        metavar="SURROGATE",
        help="label photos without sub-folders by the clusters of this surrogate",
    )
    parser.add_argument("--labels-path", default="", metavar="PATH", help="its weights")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluates; returns 1 if protection is not shown, or cannot be."""
    from ucjax.cli import settings
    from ucjax.data.folder import walk
    from ucjax.errors import UserError

    if arguments.seeds is not None and arguments.seeds < 1:
        raise UserError(f"--seeds is {arguments.seeds}: at least 1, and 3 to see the spread")
    if arguments.minutes < 0:
        raise UserError(f"--minutes is {arguments.minutes:g}: more than 0")
    given: dict[str, Any] = {}
    if arguments.seeds is not None:
        given["victim__seeds"] = tuple(range(arguments.seeds))
    count = len(walk(arguments.photos))
    config = settings.load(arguments.config, arguments.overrides, photos=count, **given)
    from ucjax.photos import evaluate as evaluation
    from ucjax.runtime import parallel

    parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
    found = evaluation.evaluate(
        arguments.photos,
        arguments.out,
        config,
        arms=arguments.arms,
        defences=arguments.defences,
        labels_by=arguments.labels_by,
        labels_path=arguments.labels_path,
        minutes=arguments.minutes,
    )
    print(json.dumps(asdict(found), indent=2) if arguments.json else evaluation.text(found))
    return 0 if found.verdict.shown else 1
