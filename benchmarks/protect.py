"""How fast does `ucjax protect` write files, and does its memory grow with their number?

    python -m benchmarks.protect                    # synthetic photos
    python -m benchmarks.protect --photos FOLDER    # your own
    python -m benchmarks.protect --kind gratings --formats png webp jpeg --sizes 3000x4000
    python -m benchmarks.protect --large 8000x12500    # instead of all that, memory for one photo

With an existing protector, against decoding and encoding alone by Pillow with the same threads:
once with the settings that `Image.save` has by default, once with ours (a faster deflate). All
that protect does beyond (surrogate, noise, reading back, PSNR, SSIM, checksums) is the difference.
The two are timed in turns, and ratios are taken within a round. Start-up counts, as from the second
run on a machine: programs compiled by an earlier one are in the cache. What a photo takes in each
part of the work, one thread alone, is beside it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ucjax import surrogates
from ucjax.config import OWNERS_ROW
from ucjax.config import photos as photos_config
from ucjax.data import folder, textures
from ucjax.data.rows import in_memory
from ucjax.files import copies, picture
from ucjax.files.fidelity import compare
from ucjax.files.picture import SUFFIXES, Encoding, Picture, write
from ucjax.files.protect import center_crop
from ucjax.photos import protect as owner
from ucjax.protections import controls, gratings, protector
from ucjax.protections.noise import on_whole
from ucjax.protections.protector import Protector
from ucjax.protections.waves import Gratings
from ucjax.runtime import parallel

# Photos of which the parts are timed.
_IN_PARTS = 24
# Prints the largest resident memory of a run of its own, in MiB. Linux counts that of the parent,
# before the child became another program, into `ru_maxrss`.
_MEASURED = """
import re, sys
from pathlib import Path
from ucjax.cli.command import main
code = main(sys.argv[1:])
print("peak", int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
sys.exit(code)
"""


def main() -> None:
    """Prints a line a size and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, help="instead of synthetic ones")
    parser.add_argument("--sizes", nargs="*", default=["256x341", "1200x1600"], metavar="HxW")
    parser.add_argument("--kind", choices=("pixels", "gratings"), default="pixels")
    parser.add_argument("--formats", nargs="+", choices=tuple(SUFFIXES), default=["png"])
    parser.add_argument("--count", type=int, default=96, help="photos of a size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", type=int, nargs="*", default=[100, 10_000], metavar="N")
    parser.add_argument(
        "--large", metavar="HxW", help="only peak memory for one photo of this size"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/protect.json"))
    arguments = parser.parse_args()
    parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        if arguments.large:
            print_large(place, arguments.large)
            return
        make_protector(place / "protector", arguments.kind)
        rows = []
        for size in ["given"] if arguments.photos else arguments.sizes:
            photos = arguments.photos or make_photos(place / size, size, arguments.count)
            for form in arguments.formats:
                encoding = Encoding(form)
                _protect(photos, place, encoding)  # compiles
                rows.append(throughput(size, photos, place, arguments.repeats, encoding))
                rows[-1]["parts_ms"] = parts(photos, place, encoding)
                print(_spelled(rows[-1]), flush=True)
        peaks = {count: peak_memory(place, count) for count in arguments.memory}
        for count, mib in peaks.items():
            print(f"{count} photos of 96 x 128 px: peak memory {mib:.0f} MiB")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    given = {"kind": arguments.kind, "cores": os.cpu_count()}
    values = {**given, "throughput": rows, "peak_mib": peaks}
    arguments.out.write_text(json.dumps(values, indent=2) + "\n")


def make_protector(place: Path, kind: str = "pixels") -> None:
    """Random noise, or what owners get, for ten random centres."""
    config = photos_config(row=OWNERS_ROW if kind == "gratings" else "")
    crop, short_side = config.data.crop, config.data.short_side
    waves = Gratings(gratings.draw(0, 10, gratings.OPTIONS["bands"], "all"), 16, short_side)
    surrogate = surrogates.load("efficientnet_lite0", image_size=config.data.crop)
    published = Protector(
        noise=controls.cluster_signs(0, 10, crop, 16) if kind == "pixels" else None,
        gratings=waves if kind == "gratings" else None,
        centers=np.random.default_rng(0).normal(size=(10, 1280)).astype(np.float32),
        surrogate_name="efficientnet_lite0",
        surrogate_path="",
        surrogate_id=surrogate.id,
        surrogate_sha256=surrogate.sha256,
        mean=surrogate.preprocessing.mean,
        std=surrogate.preprocessing.std,
        epsilon_255=16,
        norm="linf",
        grain=1,
        short_side=short_side,
        crop=crop,
        seed=0,
        versions={},
    )
    protector.save(published, place)


def make_photos(place: Path, size: str, count: int) -> Path:
    """Writes JPEGs of a size: textures enlarged, with the grain that a sensor adds."""
    height, width = (int(side) for side in size.split("x"))
    place.mkdir()
    rng = np.random.default_rng(0)
    for number, item in enumerate(textures.items("train", count, 128, 0)):
        large = item.open().resize((width, height), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 3, (height, width, 3)).astype(np.float32)
        pixels = np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number:05}.jpg", quality=90)
    return place


def throughput(
    size: str, photos: Path, place: Path, repeats: int, encoding: Encoding
) -> dict[str, Any]:
    """Returns images/s of the three ways and the ratios, median and range over the repeats."""
    names = folder.walk(photos)
    ways: dict[str, Callable[[], None]] = {
        "protect": lambda: _protect(photos, place, encoding),
        "Pillow as it comes": lambda: _recode(photos, names, place, encoding.format, None),
        "Pillow, our settings": lambda: _recode(photos, names, place, encoding.format, encoding),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            shutil.rmtree(place / "out", ignore_errors=True)
            begin = time.monotonic()
            way()
            rates[name].append(len(names) / (time.monotonic() - begin))
    ratios = {
        name: [ours / theirs for ours, theirs in zip(rates["protect"], rates[name], strict=True)]
        for name in list(ways)[1:]
    }
    given = {"size": size, "format": encoding.format, "images": len(names)}
    return {**given, "rates": rates, "ratios": ratios}


def parts(photos: Path, place: Path, encoding: Encoding) -> dict[str, float]:
    """Returns the milliseconds that a photo takes in each part of protect, a median, in one thread.

    Of the first photos of the folder, in the order in which protect does it; its checksums and its
    journal are not among them. Encoding a JPEG includes reading it back, to see how much of the
    noise is left.
    """
    chosen = protector.load(place / "protector")
    patterns = chosen.patterns()
    nearest = owner.nearest_cluster(chosen, owner.load_surrogate(chosen))
    nearest(np.zeros((chosen.crop, chosen.crop, 3), np.uint8))  # compiles
    laps: dict[str, list[float]] = {}
    for name in folder.walk(photos)[:_IN_PARTS]:
        last = time.perf_counter()

        def lap(part: str) -> None:
            nonlocal last
            now = time.perf_counter()
            laps.setdefault(part, []).append(1000 * (now - last))
            last = now

        clean = picture.read((photos / name).read_bytes())
        lap("decode")
        crop = center_crop(clean, chosen)
        lap("reduce")
        cluster = nearest(crop)
        lap("features")
        noised = on_whole(patterns, cluster, clean.pixels)
        lap("noise")
        encoded = copies.encoded(clean, noised, encoding)
        lap("encode")
        written = picture.read_pixels(in_memory, io.BytesIO(encoded)).pixels
        if encoding.format != "jpeg":
            lap("read back")
        last = time.perf_counter()
        compare(clean.pixels, written)
        lap("measure")
    return {part: round(statistics.median(taken), 2) for part, taken in laps.items()}


def _protect(photos: Path, place: Path, encoding: Encoding) -> None:
    done = owner.protect_folder(
        photos,
        place / "out",
        photos_config(),
        published=place / "protector",
        format=encoding.format,
    )
    assert not done.written.failures


def _recode(
    photos: Path, names: list[str], place: Path, form: str, encoding: Encoding | None
) -> None:
    """Decodes and encodes the *protected* pixels: noise takes longer to encode than pictures."""
    signs = (controls.image_signs(0, 0, 64, 16) * 255).astype(np.int16)
    waves = protector.load(place / "protector").gratings

    def one(name: str) -> None:
        with Image.open(photos / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        height, width, _ = pixels.shape
        if waves is None:
            tiled = np.tile(signs, (height // 64 + 1, width // 64 + 1, 1))[:height, :width]
            noisy = (pixels + tiled).clip(0, 255).astype(np.uint8)
        else:
            noisy = on_whole(waves, 0, pixels)
        path = place / "out" / f"{name}.{form}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if encoding is None:
            Image.fromarray(noisy).save(path)
        else:
            path.write_bytes(write(Picture(noisy), encoding))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, names))


def peak_memory(place: Path, count: int) -> float:
    """Returns the peak resident memory in MiB of protecting so many small photos."""
    photos, out = make_photos(place / f"many {count}", "96x128", count), place / f"out {count}"
    found = _peak("protect", photos, out, "--protector", place / "protector")
    shutil.rmtree(photos)
    shutil.rmtree(out)
    return found


def print_large(place: Path, size: str) -> None:
    """Prints the peaks of learning gratings from, protecting and verifying a photo of a size.

    Upright, and on its side as EXIF says.
    """
    height, width = (int(side) for side in size.split("x"))
    rng = np.random.default_rng(0)
    bands = [slice(top, min(top + 256, height)) for top in range(0, height, 256)]
    image, across = Image.new("RGB", (width, height)), np.linspace(40, 200, width)[None, :, None]
    for rows in bands:
        grain = rng.normal(rows.start / height * 40, 4, (rows.stop - rows.start, width, 3))
        image.paste(
            Image.fromarray((across + grain).clip(0, 255).astype(np.uint8)), (0, rows.start)
        )
    for way, orientation in (("upright", 1), ("on its side", 6)):
        exif, photos = Image.Exif(), place / way
        exif[ExifTags.Base.Orientation] = orientation
        photos.mkdir()
        image.save(photos / "large.jpg", quality=90, exif=exif)
        for form in ("png", "jpeg", "same", "webp"):
            out = place / f"{way} {form}"
            settings = ("--protection", "gratings", "--clusters", "1", "--format", form)
            peaks = (
                _peak("protect", photos, out, *settings),
                _peak("verify", out, "--against", photos),
            )
            protect, verify = (f"{mib * 2**20 / 1e6:.0f} MB" for mib in peaks)
            print(f"{size}, {way}, to {form}: protect {protect}, verify {verify}")
            shutil.rmtree(out)


def _peak(*command: object) -> float:
    """Returns the peak resident memory in MiB of a command of `ucjax`."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, *map(str, command)],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split("peak ")[-1])


def _spelled(row: dict) -> str:
    rate = statistics.median(row["rates"]["protect"])
    said = [f"{row['size']} to {row['format']}: protect {rate:.1f} images/s"]
    for name, ratios in row["ratios"].items():
        median, low, high = statistics.median(ratios), min(ratios), max(ratios)
        said.append(f"{median:.2f} x {name} ({low:.2f} to {high:.2f})")
    said.append(", ".join(f"{part} {ms:g}" for part, ms in row["parts_ms"].items()) + " ms")
    return " · ".join(said)


if __name__ == "__main__":
    main()
