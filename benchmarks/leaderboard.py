"""Which protection protects most? All rows × a few victims that a CPU can afford, ranked.

    python -m benchmarks.leaderboard --textures                 # synthetic, offline, on 2 cores
    python -m benchmarks.leaderboard --photos PHOTOS            # class folders of photographs
    python -m benchmarks.leaderboard --tiny-imagenet ZIP        # its 40 first classes, 64 px
    python -m benchmarks.leaderboard --tfds oxford_iiit_pet     # a data set of TFDS, prepared

One comparison like any other (`ucjax compare`): a killed run goes on, and cells of other runs are
taken with `--reuse`. Baselines train a ResNet-18 of width 16 for less long than published, as their
rows' names say; each is told the clusters, which is what `uc` knows, and some the true classes as
well. Rows are ranked by how far their victims fall below the clean ones, mean over the columns.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from scipy.stats import spearmanr

from benchmarks import tiny_imagenet
from configs import quickstart
from ucjax import config as settings
from ucjax.comparison import run
from ucjax.comparison.table import Entry, Table, clean_of, drop
from ucjax.comparison.verdict import percent
from ucjax.data.folder import walk
from ucjax.report.finish import finish
from ucjax.runtime import checkpoint, parallel

CONTROLS = ("clean", "random", "cluster_random", "cluster_untrained")
# How long baselines train, so that a row takes minutes at 1,000 images of 64 px on 2 cores.
AFFORDABLE = {
    "lsp": "",
    "pil": "",
    "em": ":width=16:rounds=5",
    "emax": ":width=16:epochs=20:rounds=3",
    "tap": ":width=16:epochs=20:steps=50",
    "aue": ":width=16:epochs=10",
    "aap": ":width=16:epochs=20:steps=50",
    "deepconfuse": ":width=16:trials=5:epochs=3",
}
LABELLED = ("lsp", "em", "tap")  # with true classes as well: how strong their kinds can be
ROWS = (
    *CONTROLS,
    *("uc", "gratings", "em_frozen"),
    *(f"{name}:labels=cluster{options}" for name, options in AFFORDABLE.items()),
    *(f"{name}:labels=true{AFFORDABLE[name]}" for name in LABELLED),
)
COLUMNS = ("resnet18", "resnet18+jpeg75", "lite0_probe")
_CLASSES = 40
MINIATURE = (
    *("--side", "32", "--train-count", "24", "--test-count", "12", "--epochs", "1"),
    *("--seeds", "1", "--columns", "linear", "--rows", "clean", "gratings", "lsp:labels=cluster"),
)  # fmt: skip


class Place(NamedTuple):
    """A line of the ranking: a row, and by how much its victims fall, mean over the columns."""

    label: str
    drop: float | None


def main(argv: list[str] | None = None) -> None:
    """Fills the table, prints the ranking, and writes it as Markdown and JSON."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = parse(given)
    parallel.initialize(coordinator="", processes=1, process_id=0, detect=False)
    name = name_of(arguments)
    folder = arguments.workdir or Path("out") / f"leaderboard-{name}"
    config = config_of(arguments, folder)
    command = ["python", "-m", "benchmarks.leaderboard", *given]
    begin = time.monotonic()
    filled = run.run(config, folder, command=command, reuse=arguments.reuse)
    finish(filled)
    about = {
        "command": shlex.join(command),
        "commit": commit(),
        "devices": filled.table.environment["devices"],
        "seconds": round(time.monotonic() - begin),
    }
    text = markdown(filled.table, about)
    print(text)
    out = arguments.out or Path("benchmarks/results") / f"leaderboard_{name}.json"
    agreed = agreement(filled.table)
    values = {
        "ranking": [place._asdict() for place in ranking(filled.table)],
        "agreement": agreed._asdict() if agreed else None,
        "table": filled.table.to_json(),
    }
    checkpoint.write_json(out, {**about, **values})
    checkpoint.write_bytes(out.with_suffix(".md"), text.encode())


def parse(argv: list[str]) -> argparse.Namespace:
    """Parses arguments; `--miniature` stands for options that show only that everything runs."""
    if "--miniature" in argv:
        at = argv.index("--miniature")
        argv = [*argv[:at], *MINIATURE, *argv[at + 1 :]]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="--miniature: so small that it means nothing, on textures",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--textures", action="store_true", help="synthetic pictures, the default")
    source.add_argument("--photos", type=Path, metavar="PHOTOS", help="a folder of class folders")
    source.add_argument("--tiny-imagenet", type=Path, metavar="ZIP", help="its 40 first classes")
    source.add_argument("--tfds", default="", metavar="NAME", help="such as oxford_iiit_pet")
    parser.add_argument("--rows", nargs="+", default=ROWS, metavar="ROW")
    parser.add_argument("--columns", nargs="+", default=COLUMNS, metavar="COLUMN")
    parser.add_argument("--side", type=int, default=64, help="pixels, 64")
    parser.add_argument("--train-count", type=int, default=1000, help="images, 1000; 0: all")
    parser.add_argument("--test-count", type=int, default=500, help="images, 500; 0: all")
    parser.add_argument("--epochs", type=int, default=15, help="of victims from scratch, 15")
    parser.add_argument("--width", type=int, default=16, help="of victims, 16; 64 is ResNet-18's")
    parser.add_argument("--seeds", type=int, default=2, help="victims each, 2")
    parser.add_argument("--reuse", nargs="*", default=[], type=Path, metavar="RUN")
    parser.add_argument("--workdir", type=Path, metavar="DIR", help="out/leaderboard-…")
    parser.add_argument("--out", type=Path, metavar="JSON", help="benchmarks/results/…, and .md")
    return parser.parse_args(argv)


def name_of(arguments: argparse.Namespace) -> str:
    """Returns what a run is called in the names of files."""
    if arguments.photos:
        return arguments.photos.resolve().name
    return arguments.tfds or ("tiny_imagenet" if arguments.tiny_imagenet else "textures")


def config_of(arguments: argparse.Namespace, folder: Path) -> ConfigDict:
    """Returns the experiment: pixels trained directly, as the owner's defaults, and crops."""
    side, large = arguments.side, round(arguments.side * 8 / 7)
    if not (arguments.photos or arguments.tiny_imagenet or arguments.tfds):
        c = quickstart.get_config()  # grain and learning rate are those of the textures
        c.data.update(short_side=side)
    else:
        root = arguments.photos
        if arguments.tiny_imagenet:
            root = tiny_imagenet.unpack(arguments.tiny_imagenet, folder / "pictures", _CLASSES)
        count = arguments.train_count or (len(walk(root)) if root else 0)
        c = settings.photos(count)
        c.data.update(root=str(root or ""), name=arguments.tfds)
        c.data.update(source="folder" if root else "tfds")
        # Pictures of this very side are not enlarged to be cropped.
        c.data.update(short_side=side if arguments.tiny_imagenet else large)
        c.files.geometry = "crop"
    c.data.update(crop=side, train_count=arguments.train_count, test_count=arguments.test_count)
    c.victim.update(
        epochs=arguments.epochs, width=arguments.width, short_side=large, crop=side
    )  # fmt: skip
    c.protections, c.victims = tuple(arguments.rows), tuple(arguments.columns)
    c.seeds = tuple(range(arguments.seeds))
    return c


def commit() -> str:
    """Returns the commit of the working tree, and whether it has changes; "" outside of one."""

    def git(*words: str) -> str:
        place = Path(__file__).parent
        found = subprocess.run(
            ["git", *words], cwd=place, capture_output=True, text=True, check=False
        )
        return found.stdout.strip()

    return git("rev-parse", "HEAD") + (" with changes" if git("status", "--porcelain") else "")


def ranking(table: Table) -> list[Place]:
    """Returns the rows, those that hurt their victims most first; those without victims last."""
    places = []
    for line in table.lines:
        entries = [e for e in table.entries if e.label == line.label]
        fell = [found[0] for entry in entries if (found := drop(table, entry)) is not None]
        places.append(Place(line.label, statistics.fmean(fell) if fell else None))
    return sorted(places, key=lambda place: (place.drop is None, -(place.drop or 0)))


class Agreement(NamedTuple):
    """How well *seen early* ranks rows as victims do: Spearman's correlation with the drop."""

    correlation: float
    rows: int


def agreement(table: Table) -> Agreement | None:
    """Returns the agreement over the rows that have both; None of fewer than three, or of ties."""
    seen = {line.label: line.availability for line in table.lines}
    pairs = [
        (found.gain, place.drop)
        for place in ranking(table)
        if place.drop is not None and (found := seen[place.label])
    ]
    tied = any(len(set(values)) == 1 for values in zip(*pairs, strict=True))
    if len(pairs) < 3 or tied:
        return None
    return Agreement(float(spearmanr(pairs).statistic), len(pairs))


def markdown(table: Table, about: dict[str, Any]) -> str:
    """Returns the ranking with what it was made by."""
    columns = [column.name for column in table.columns]
    head = ["#", "protection", "mean drop", *columns, "seen early", "PSNR", "SSIM", "passes", "s"]
    lines = [
        f"`{about['command']}`",
        "",
        f"Commit {about['commit']}, {about['devices']}, {about['seconds']} s; {table.train_count} "
        f"images to train on, {max((c.test_count for c in table.columns), default=0)} clean test "
        "images. Clean test accuracy in %, last epoch, mean ± std over the seeds, and in brackets "
        "by how many points it lies below the clean files'.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for number, place in enumerate(ranking(table), start=1):
        line = table.line(place.label)
        seen = line.availability
        cells = [
            str(number),
            f"`{place.label}`",
            "–" if place.drop is None else f"{100 * place.drop:.1f}",
            *(_cell(table, table.entry(place.label, column)) for column in columns),
            "–" if seen is None else f"{100 * seen.gain:+.0f}",
            f"{line.psnr_median:.1f}".replace("inf", "∞"),
            f"{line.ssim_median:.3f}",
            str(line.image_passes),
            "–" if line.seconds is None else f"{line.seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if found := agreement(table):
        lines += [
            "",
            "Rank correlation (Spearman) of *seen early* with the mean drop: "
            f"{found.correlation:.2f} over {found.rows} rows.",
        ]
    return "\n".join([*lines, ""])


def _cell(table: Table, entry: Entry | None) -> str:
    if entry is None:
        return "–"
    if entry is clean_of(table, entry.column):
        return percent(entry)
    fell = drop(table, entry)
    return percent(entry) + (f" ({100 * fell[0]:.1f})" if fell else "")


if __name__ == "__main__":
    main()
