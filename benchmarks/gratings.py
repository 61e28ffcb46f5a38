"""What does a file wait for when gratings are put on it, and how much does it grow?

    python -m benchmarks.gratings                    # synthetic photos
    python -m benchmarks.gratings --photos FOLDER    # your own, at their own sizes

One thread, milliseconds of its processor time a file, median over the photos: decoding and
encoding, which every tool waits for, then the wave, reading back, the hashes and the measures of
what is seen. Beside them the share of the wave's amplitude that the written file holds (matched
filter), and its size over that of the clean picture: of the photo's own file where the copy is of
its format, else encoded in the same way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protect import make_photos
from ucjax.data import folder
from ucjax.files import copies, cue, picture
from ucjax.files.fidelity import compare
from ucjax.files.picture import Encoding
from ucjax.protections import gratings
from ucjax.protections.noise import on_whole
from ucjax.protections.waves import Gratings

_WAITED_FOR = ("decode", "encode")


def main() -> None:
    """Prints a line a size, format and colour, and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="instead of synthetic ones")
    parser.add_argument("--sizes", nargs="*", default=["256x341", "3000x4000"], metavar="HxW")
    parser.add_argument("--formats", nargs="*", default=["png", "webp", "jpeg"])
    parser.add_argument("--colors", nargs="*", default=["chroma"])
    parser.add_argument("--wave", default="square")
    parser.add_argument("--eps", type=int, default=16)
    parser.add_argument("--count", type=int, default=6, help="photos of a size")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gratings.json"))
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for size in ["given"] if arguments.photos else arguments.sizes:
            root = arguments.photos or make_photos(Path(scratch) / size, size, arguments.count)
            names = folder.walk(root)
            photos = names[:: max(1, len(names) // arguments.count)][: arguments.count]
            for color in arguments.colors:
                bands = gratings.OPTIONS["bands"]
                carriers = gratings.draw(0, len(photos), bands, color)
                waves = Gratings(carriers, arguments.eps, 256, arguments.wave)
                for format_ in arguments.formats:
                    row = measure([root / name for name in photos], waves, Encoding(format_))
                    found.append({"size": size, "color": color, "format": format_, **row})
                    print(_spelled(found[-1]))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")


def measure(paths: list[Path], waves: Gratings, encoding: Encoding) -> dict[str, Any]:
    """Returns what each part takes in ms, the shares of the cue and the growth of the files."""
    seconds: dict[str, list[float]] = defaultdict(list)
    shares, sizes, clean_sizes = [], 0, 0

    def timed(part: str, call: Callable[[], Any]) -> Any:
        begin = time.thread_time()
        result = call()
        seconds[part].append(time.thread_time() - begin)
        return result

    for row, path in enumerate(paths):
        data = path.read_bytes()
        photo = timed("decode", lambda: picture.read(data))  # noqa: B023
        clean = photo.pixels
        added = timed("wave", lambda: on_whole(waves, row, clean))  # noqa: B023
        file = timed("encode", lambda: copies.encoded(photo, added, encoding))  # noqa: B023
        found = timed("read back", lambda: picture.read(file)).pixels  # noqa: B023
        timed("seen", lambda: compare(clean, found))  # noqa: B023
        timed("hashes", lambda: [hashlib.sha256(x).digest() for x in (data, file)])  # noqa: B023
        shares.append(cue.share(clean, added, found))
        sizes += len(file)
        kept = path.suffix == picture.SUFFIXES[encoding.format]
        clean_sizes += len(data) if kept else len(picture.write(photo, encoding))
    parts = {part: 1000 * statistics.median(values) for part, values in seconds.items()}
    return {
        "parts_ms": parts,
        "of_decode_and_encode": sum(parts.values()) / sum(parts[part] for part in _WAITED_FOR),
        "cue_median": statistics.median(shares),
        "cue_min": min(shares),
        "growth": sizes / clean_sizes,
        "megapixels": float(np.mean(clean.shape[0] * clean.shape[1])) / 1e6,
    }


def _spelled(row: dict[str, Any]) -> str:
    parts = ", ".join(f"{part} {value:.1f}" for part, value in row["parts_ms"].items())
    return (
        f"{row['size']} {row['format']} {row['color']}: {parts} ms · all "
        f"{row['of_decode_and_encode']:.2f} x decode and encode · cue {row['cue_median']:.3f} "
        f"median, {row['cue_min']:.3f} least · files {row['growth']:.2f} x"
    )


if __name__ == "__main__":
    main()
