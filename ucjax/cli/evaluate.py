"""`ucjax evaluate PHOTOS OUT`: does it work on MY photos?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ucjax.cli.command import add_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of the originals")
    parser.add_argument("out", metavar="OUT", type=Path, help="what ucjax protect wrote")
    parser.add_argument("--seeds", type=int, metavar="N", help="victims per row (default 3)")
    parser.add_argument("--minutes", type=float, default=0.0, metavar="M", help="train no longer")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="train no victim: tell in a minute how early the noise is seen",
    )
    parser.add_argument(
        "--controls",
        nargs="*",
        default=["random", "cluster_random"],
        metavar="ROW",
        help="beside the clean and the protected files (default: random cluster_random)",
    )
    parser.add_argument(
        "--victims",
        nargs="+",
        metavar="COLUMN",
        help="such as resnet18+jpeg75 (default: resnet18, and with JPEG 75, and in grey; "
        "see ucjax compare --help)",
    )
    parser.add_argument(
        "--labels",
        default="",
        metavar="RULE",
        help="for photos without sub-folders, such as clusters-10-packaged_clip (whose weights are "
        "for non-commercial research and education)",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    add_config(parser)


def run(arguments: argparse.Namespace) -> int:
    """Evaluates; returns 1 if victims were trained and do not show protection."""
    from ucjax.cli import settings
    from ucjax.errors import UserError, printable

    if arguments.seeds is not None and arguments.seeds < 1:
        raise UserError(f"--seeds is {arguments.seeds}: at least 1, and 3 to see the spread")
    if arguments.minutes < 0:
        raise UserError(f"--minutes is {arguments.minutes:g}: more than 0")
    given: dict[str, Any] = {}
    if arguments.seeds is not None:
        given["seeds"] = tuple(range(arguments.seeds))
    count = settings.counted(arguments.photos)
    config = settings.load(arguments.config, arguments.overrides, photos=count, **given)
    from ucjax.comparison import verdict
    from ucjax.photos import evaluate
    from ucjax.report import owner
    from ucjax.report.finish import finish
    from ucjax.runtime import parallel

    parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
    owner.check(arguments.out)
    filled = evaluate.evaluate(
        arguments.photos,
        arguments.out,
        config,
        rows=arguments.controls,
        columns=() if arguments.quick else arguments.victims or evaluate.COLUMNS,
        labels=arguments.labels,
        minutes=arguments.minutes,
        command=sys.argv,
    )
    said = finish(filled)
    page = owner.write(arguments.photos, arguments.out, evaluated=True)
    said += f"\nwith pictures: {printable(str(page))}"
    print(json.dumps(filled.table.to_json(), indent=2) if arguments.json else said)
    return 0 if arguments.quick or verdict.judge(filled.table).shown else 1
