"""`ucjax table RUN…`: merges the tables of several runs into one ranked leaderboard."""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folders with table.json")
    parser.add_argument("--csv", action="store_true", help="comma-separated values")


def run(arguments: argparse.Namespace) -> int:
    """Prints the leaderboard: the largest drop of clean accuracy first."""
    from ucjax.comparison import table
    from ucjax.report import tables

    runs = arguments.runs
    ranked = tables.ranked([table.load(folder) for folder in runs], [str(run) for run in runs])
    if arguments.csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(ranked)
    else:
        print("\n".join(tables.aligned(ranked)))
    return 0
