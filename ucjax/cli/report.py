"""`ucjax report WORKDIR`: the report of a finished run again, or what an evaluation said."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "workdir", metavar="WORKDIR", type=Path, help="of ucjax.main, or OUT of ucjax evaluate"
    )


def run(arguments: argparse.Namespace) -> int:
    """Writes report.html and prints the table, or prints an evaluation."""
    from ucjax.errors import UserError
    from ucjax.runtime import checkpoint

    folder: Path = arguments.workdir
    said = folder / "evaluation" / "evaluation.txt"
    if said.exists():
        print(said.read_text(), end="")
        return 0
    if not (folder / "report.json").exists():
        raise UserError(f"{folder} holds no finished run: give the --workdir of one")
    from ucjax import config, pipeline
    from ucjax.runtime import parallel, workdir

    settings = workdir.flat(checkpoint.read_json(folder / "config.json"))
    saved = config.with_settings(config.paper(), settings)
    parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
    command = checkpoint.read_json(folder / "env.json")["command"]
    pipeline.run(saved, folder, command=[command])
    return 0
