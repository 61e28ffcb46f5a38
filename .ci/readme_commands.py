"""Runs every command of the README, on small inputs, and stops at the first surprise.

The words in capitals are replaced by folders, and configurations are shrunk by overrides that are
appended; the rest of a line is run as it is written.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
TINY_PHOTOS = [
    "--config.data.short_side=36",
    "--config.data.crop=32",
    "--config.noise.epochs=1",
    "--config.noise.batch_size=8",
]
TINY_VICTIMS = [
    "--config.victim.short_side=36",
    "--config.victim.crop=32",
    "--config.victim.width=4",
    "--config.victim.epochs=2",
    "--config.victim.batch_size=8",
    "--config.seeds=(0,)",
]
TINY_TEXTURES = ["--config.data.train_count=24", "--config.data.test_count=12"]
SIXTEEN = ["--config.noise.batch_size=16", "--config.victim.batch_size=16"]  # chips
# What is appended to lines with these words (the first that fits), and the exit codes they may
# have. Protection that is not shown is 1; the paper's data cannot be had offline, which is 2.
EXPECTED: list[tuple[str, list[str], tuple[int, ...]]] = [
    ("ucjax evaluate", TINY_VICTIMS, (0, 1)),
    ("compare --help", [], (0,)),
    ("ucjax compare", ["--seeds", "1", *TINY_PHOTOS, *TINY_VICTIMS, "--config.clusters.k=3"], (0,)),
    ("--protector", [], (0,)),
    ("ucjax protect", ["--clusters", "3", *TINY_PHOTOS], (0,)),
    ("ucjax plan --config", [*TINY_PHOTOS, *TINY_VICTIMS, *SIXTEEN], (0, 1)),
    ("ucjax plan", TINY_PHOTOS, (0, 1)),
    ("ucjax ", [], (0,)),
    ("launch/tpu_vm.sh --print", [], (0,)),
    ("ucjax table", [], (0,)),
    ("configs/folder.py", ["--config.clusters.k=3", *TINY_PHOTOS, *TINY_VICTIMS], (0,)),
    ("configs/pets.py", [], (2,)),
    ("configs/quickstart.py", [*TINY_TEXTURES, *TINY_PHOTOS, *TINY_VICTIMS], (0,)),
]
# Not to be had here; tests/doors/test_launch.py checks the files that they are given.
ELSEWHERE = ("kubectl", "sbatch", "sky")


def commands() -> list[str]:
    """Returns the README's command lines without comments and without what installs or tests."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.splitlines()]
    lines = [re.sub(r"^pip install \S+( \S+)?( && )?", "", line) for line in lines]
    return [line for line in lines if line not in ("", "./check")]


def main() -> None:
    """Runs them in order, in one temporary place."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for name in ("PHOTOS", "MORE"):
            make_photos(place / name)
        for line in commands():
            if line.startswith("export "):
                os.environ |= dict(word.split("=", 1) for word in shlex.split(line)[1:])
            elif line.startswith(ELSEWHERE):
                find_files(line)
            else:
                run(line, place)


def make_photos(root: Path) -> None:
    """Writes two classes of a dozen small photographs."""
    for number in range(24):
        path = root / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((60, 50 + number)).save(path)


def find_files(line: str) -> None:
    """Looks for the files that a line names; exits if one is missing."""
    missing = [p for p in re.findall(r"(?:configs|launch)/\S+", line) if not (ROOT / p).is_file()]
    if missing:
        sys.exit(f"no {missing[0]}, named by: {line}")
    print(f"not run here: {line}", flush=True)


def run(line: str, place: Path) -> None:
    """Runs one line; exits if its code is not among those expected."""
    appended, allowed = next((a, codes) for words, a, codes in EXPECTED if words in line)
    command = re.sub(r"\b(PHOTOS|MORE|OUT\d?|DEST)\b", lambda m: str(place / m[1]), line)
    command = re.sub(r"(?<![\w/])out/", f"{place}/out/", command)
    begin = time.monotonic()
    done = subprocess.run(
        [*shlex.split(command), *appended], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(f"{time.monotonic() - begin:4.0f} s  exit code {done.returncode}  {line}", flush=True)
    if done.returncode == 2 and "oxford_iiit_pet is not prepared" not in done.stderr:
        sys.exit(f"not the error of missing data:\n{done.stderr[-3000:]}")
    if done.returncode not in allowed:
        sys.exit(f"expected one of {allowed}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    main()
