"""SIGKILLs at random moments of `ucjax protect`: the bytes are those of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time

import odd_files
from pictures import content
from test_owner import SMALL, state

TRAINING = [
    ".training/cache/photos-*",
    ".training/features/efficientnet_lite0.safetensors",
    ".training/clusters/efficientnet_lite0-k3-seed0.safetensors",
    "protector/protector.safetensors",
]


def start(photos, out, cache):
    command = [sys.executable, "-m", "ucjax", "protect", str(photos), str(out), "--clusters", "3"]
    environment = os.environ | {"UCJAX_CACHE": str(cache)}
    return subprocess.Popen(
        [*command, *SMALL, "--config.noise.epochs=4"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(photos, out, cache):
    process = start(photos, out, cache)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()


def kill_again_and_again(folder, kills, count):
    """Protects `count` photos with interruptions; checks all that must hold."""
    photos, cache, out = folder / "photos", folder / "cache", folder / "out"
    for number in range(count):
        path = photos / f"{number % 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(200, 160 + number % 7, seed=number).save(path)
    before = state(photos)
    finish(photos, folder / "whole", cache)
    rng = random.Random(0)
    # Shortly after each of the training's files has appeared, then at so many finished copies.
    written = [(pattern, 1) for pattern in TRAINING]
    numbers = sorted(rng.sample(range(1, count - 10), kills - len(written)))
    for pattern, least in [*written, *(("images/*/*", number) for number in numbers)]:
        process = start(photos, out, cache)
        while len(list(out.glob(pattern))) < least:
            assert process.poll() is None, f"ended before there were {least} of {pattern}"
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    finish(photos, out, cache)
    pages = [place / "report.html" for place in (out, folder / "whole")]
    one, other = (page.read_bytes() for page in pages)
    assert one.partition(b"<body>")[2] == other.partition(b"<body>")[2].replace(b"/whole", b"/out")
    for page in pages:  # which names its folder
        page.unlink()
    assert content(out) == content(folder / "whole")
    assert state(photos) == before


def test_killed_runs_end_with_the_bytes_of_an_undisturbed_one(tmp_path):
    kill_again_and_again(tmp_path, kills=6, count=60)
