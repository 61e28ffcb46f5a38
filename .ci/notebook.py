"""Runs docs/tutorial.ipynb; with `--write` keeps what it printed, else fails if it has none.

python .ci/notebook.py [--write]
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

PLACE = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"
MOST_CELLS, MOST_BYTES = 15, 400_000


def main() -> None:
    """Executes every cell; exits if one fails, or if the notebook as it is kept is not whole."""
    kept = nbformat.read(PLACE, as_version=4)
    book = nbformat.read(PLACE, as_version=4)
    begin = time.monotonic()

    def say(cell: object, cell_index: int, **_: object) -> None:
        print(f"{PLACE.name}: cell {cell_index} after {time.monotonic() - begin:.0f} s", flush=True)

    client = NotebookClient(book, timeout=300, coalesce_streams=True, on_cell_executed=say)
    client.execute()
    if sys.argv[1:] == ["--write"]:
        for cell in book.cells:
            cell.metadata.clear()  # times of this machine
        book.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        nbformat.write(book, PLACE)
        kept = book
    silent = [i for i, x in enumerate(book.cells) if x.get("outputs") and not kept.cells[i].outputs]
    if silent:
        sys.exit(f"cells {silent} are kept without what they print: python {sys.argv[0]} --write")
    if len(kept.cells) > MOST_CELLS or PLACE.stat().st_size > MOST_BYTES:
        sys.exit(f"{PLACE.name} has {len(kept.cells)} cells and {PLACE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
