"""`ucjax export`: hands the protected files to other ecosystems, byte for byte."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ucjax.exports import TARGETS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `run` reads."""
    parser.add_argument("folder", type=Path, metavar="OUT", help="what ucjax protect wrote")
    parser.add_argument(
        "--to",
        required=True,
        choices=TARGETS,
        help="Hugging Face (Parquet), TensorFlow Datasets (ArrayRecord), tar shards, class "
        "folders, Azure Custom Vision (a folder a tag), PaddleX and EasyDL (zip files)",
    )
    parser.add_argument("destination", type=Path, metavar="DEST", help="a new folder")


def run(arguments: argparse.Namespace) -> int:
    """Exports; prints where to, how much, and the line of Python that opens it."""
    from ucjax.exports.export import export

    progress = _Count if sys.stderr.isatty() else None
    done = export(arguments.folder, arguments.to, arguments.destination, progress)
    classes = f" in {done.classes} classes" if done.classes else ""
    print(f"{done.folder}: {done.images} images{classes}, {done.size:,} bytes")
    print(f"open it with {done.reading}")
    return 0


class _Count:
    """tqdm's bar, for which JAX need not be imported."""

    def __init__(self, label: str, total: int):
        from tqdm import tqdm

        self._bar = tqdm(desc=label, total=total, unit=" images", dynamic_ncols=True)

    def update(self, done: int) -> None:
        self._bar.update(done - self._bar.n)

    def close(self, done: int) -> None:
        self.update(done)
        self._bar.close()
