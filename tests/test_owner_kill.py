"""SIGKILLs at random moments of `ucjax protect`: the bytes are those of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time

import hostile
from pictures import content
from test_owner import SMALL, state

KILLS = 4


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
    """Runs to the end; returns the seconds it took."""
    begin = time.monotonic()
    process = start(photos, out, cache)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()
    return time.monotonic() - begin


def kill_again_and_again(folder, kills, photos_count=60):
    """Returns how many of the kills met a running process; checks all that must hold."""
    photos, cache = folder / "photos", folder / "cache"
    for number in range(photos_count):
        path = photos / f"{number % 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        hostile.photo(200, 160 + number % 7, seed=number).save(path)
    before = state(photos)
    finish(photos, folder / "first", cache)  # compiles
    seconds = finish(photos, folder / "whole", cache)
    rng, alive = random.Random(0), 0
    for _ in range(kills):
        process = start(photos, folder / "out", cache)
        time.sleep(rng.uniform(0.2, 1) * seconds)
        alive += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(photos, folder / "out", cache)
    assert content(folder / "out") == content(folder / "whole")
    assert content(folder / "first") == content(folder / "whole")
    assert state(photos) == before
    return alive


def test_killed_runs_end_with_the_bytes_of_an_undisturbed_one(tmp_path):
    assert kill_again_and_again(tmp_path, KILLS) > 0
