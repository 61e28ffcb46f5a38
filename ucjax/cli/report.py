"""`ucjax report RUN`: the table and page of a finished run again."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "run", metavar="RUN", type=Path, help="a --workdir, or OUT of ucjax evaluate"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the table and the verdict; the page lies beside it."""
    from ucjax.comparison import table, verdict
    from ucjax.report import tables

    folder: Path = arguments.run
    if not (folder / table.FILE).exists() and (folder / "evaluation").is_dir():
        folder = folder / "evaluation"
    found = table.load(folder)
    print(tables.said(found, verdict.judge(found)))
    return 0
