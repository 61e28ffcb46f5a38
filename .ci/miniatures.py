"""Runs the miniature of every config of configs/paper and configs/beyond, in one process.

    python .ci/miniatures.py [NAME …]

One process compiles each program once, and a miniature takes the cells of those before it.
"""

import argparse
import contextlib
import io
import sys
import tempfile
import time
from pathlib import Path

from ucjax.cli import settings
from ucjax.comparison import run
from ucjax.comparison.table import Table
from ucjax.report.finish import finish
from ucjax.runtime import parallel

ROOT = Path(__file__).parents[1]
ROOMS = ("paper", "beyond")


def main() -> None:
    """Runs those named, or all; exits where one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as epsilon")
    arguments = parser.parse_args()
    files = sorted(p for room in ROOMS for p in (ROOT / "configs" / room).glob("[a-z]*.py"))
    chosen = [path for path in files if path.stem in arguments.names or not arguments.names]
    if len(arguments.names) not in (0, len(chosen)):
        parser.error(f"choose of {', '.join(path.stem for path in files)}")
    parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
    with tempfile.TemporaryDirectory() as scratch:
        done: list[Path] = []
        for path in chosen:
            begin = time.monotonic(), time.process_time()
            config = settings.load(f"{path.relative_to(ROOT)}:miniature", [])
            config.data.cache = str(Path(scratch) / "cache")
            folder = Path(scratch) / path.stem
            with contextlib.redirect_stdout(io.StringIO()):
                filled = run.run(config, folder, command=["miniature"], reuse=done)
                if not done:  # of pages one is enough
                    finish(filled)
            check(filled.table, path.stem)
            done.append(folder)
            wall, cpu = time.monotonic() - begin[0], time.process_time() - begin[1]
            print(f"{wall:5.1f} s, {cpu:5.1f} of CPU  {path.parent.name}/{path.stem}", flush=True)


def check(table: Table, name: str) -> None:
    """Exits if a cell is missing."""
    wanted = {
        (line.label, column.name)
        for line in table.lines
        for column in table.columns
        if line.row != "absent" or ":share=" in column.name  # of all files nothing is left
    }
    found = {(entry.label, entry.column) for entry in table.entries}
    if found != wanted or not wanted:
        sys.exit(f"{name}: no cells for {sorted(wanted - found)}")


if __name__ == "__main__":
    main()
