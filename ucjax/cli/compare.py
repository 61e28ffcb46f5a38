"""`ucjax compare CLEAN`: any protections, anybody's files, against any victims, in one table."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ucjax.cli.command import add_config

if TYPE_CHECKING:
    from ml_collections import ConfigDict

OUT = Path("out/compare")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments, and the names of all rows and columns to the help."""
    parser.add_argument("clean", metavar="CLEAN", type=Path, help="folder of the clean images")
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="LABEL=FOLDER",
        help="anybody's protected files, mirrored by name; may be given several times",
    )
    parser.add_argument(
        "--protections", nargs="+", metavar="ROW", help="to make and measure (default: clean)"
    )
    parser.add_argument(
        "--victims", nargs="+", default=["resnet18"], metavar="COLUMN", help="default resnet18"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="victims each, default 3")
    parser.add_argument("--noise-seeds", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument(
        "--workdir", type=Path, default=OUT, metavar="DIR", help=f"of all results, default {OUT}"
    )
    parser.add_argument(
        "--reuse", nargs="*", default=[], type=Path, metavar="RUN", help="take cells of these runs"
    )
    parser.add_argument(
        "--import",
        dest="elsewhere",
        type=Path,
        metavar="RESULTS.csv",
        help="accuracies measured elsewhere: columns protection, victim, accuracy[, seed]",
    )
    parser.add_argument(
        "--module", action="append", default=[], metavar="MODULE", help="adds rows and columns"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    add_config(parser)
    if "--help" in sys.argv or "-h" in sys.argv:
        parser.epilog = f"{describe()}\n\n{parser.epilog}"


def describe() -> str:
    """Returns every row and column with its sentence."""
    from ucjax.protections.table import PROTECTIONS
    from ucjax.victims import table

    rows = [
        f"  {name + ('=' + entry.value if entry.value else ''):<20} {entry.sentence}"
        for name, entry in PROTECTIONS.items()
    ]
    return "\n".join(["protections (ROW is NAME[:key=value]…):", *rows, "", table.describe()])


def run(arguments: argparse.Namespace) -> int:
    """Compares; prints the table."""
    from ucjax.cli import settings
    from ucjax.errors import UserError

    if not arguments.clean.is_dir():
        raise UserError(f"{arguments.clean} is not a folder: give the folder of the clean images")
    for option, value in (("seeds", arguments.seeds), ("noise-seeds", arguments.noise_seeds)):
        if value < 1:
            raise UserError(f"--{option} is {value}: at least 1")
    with settings.importable(Path.cwd()):  # as it is for python -m
        for module in arguments.module:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise UserError(f"--module {module}: {error}") from error
    config = _config(arguments)
    from ucjax.comparison.run import run as compare
    from ucjax.report.finish import finish
    from ucjax.runtime import parallel

    parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
    filled = compare(
        config,
        arguments.workdir,
        command=sys.argv,
        reuse=arguments.reuse,
        elsewhere=arguments.elsewhere,
    )
    said = finish(filled)
    print(json.dumps(filled.table.to_json(), indent=2) if arguments.json else said)
    return 0


def _config(arguments: argparse.Namespace) -> ConfigDict:
    from ucjax.cli import settings

    rows = list(arguments.protections or ["clean"])
    rows += [_labelled(given) for given in arguments.row]
    if "clean" not in rows and "clean_original" not in rows:
        rows.insert(0, "clean")
    given: dict[str, Any] = {
        "data__source": "folder",
        "data__root": str(arguments.clean),
        "data__split_unlabelled": True,
        "protections": tuple(rows),
        "victims": tuple(arguments.victims),
        "seeds": tuple(range(arguments.seeds)),
        "noise_seeds": tuple(range(arguments.noise_seeds)),
    }
    count = settings.counted(arguments.clean)
    return settings.load(arguments.config, arguments.overrides, photos=count, **given)


def _labelled(given: str) -> str:
    from ucjax.errors import UserError
    from ucjax.names import Name

    label, sign, folder = given.partition("=")
    if not sign or not label or not folder:
        raise UserError(f"--row {given!r} looks like LABEL=FOLDER")
    return str(Name("folder", folder, (), (("label", label),)))
