"""One cache, several processes: killed, racing, or on another host."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ucjax.data import images

SLOW = """
import sys, time
from pathlib import Path
from PIL import Image
from ucjax.data import images

cache, seconds = Path(sys.argv[1]), float(sys.argv[2])

def opening(i):
    with open(cache / "opened", "a") as log:
        log.write(f"{i}\\n")
    time.sleep(seconds)
    return Image.new("RGB", (8, 8 + i))

items = [images.Item(f"{i}.png", lambda i=i: opening(i), i, "") for i in range(20)]
images.build(items, short_side=8, cache_dir=cache, label="x", threads=2)
assert "jax" not in sys.modules
"""


def folders(path):
    return sorted(child.name for child in path.iterdir() if child.is_dir())


def start(cache, seconds):
    return subprocess.Popen(
        [sys.executable, "-c", SLOW, str(cache), str(seconds)], cwd=Path(__file__).parents[2]
    )


def test_a_killed_build_leaves_nothing_usable_and_its_rest_is_removed(tmp_path):
    process = start(tmp_path, 0.1)
    log = tmp_path / "opened"
    deadline = time.monotonic() + 20
    while not (log.exists() and len(log.read_text().split()) > 8):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (rest,) = folders(tmp_path)
    assert rest.startswith(".x-")
    assert rest.endswith(".tmp")
    log.unlink()
    assert start(tmp_path, 0).wait(20) == 0
    (folder,) = folders(tmp_path)
    assert folder.startswith("x-")
    assert len(log.read_text().split()) == 20  # from the start
    assert np.load(tmp_path / folder / "starts.npy")[-1] == sum(8 + i for i in range(20))


def test_two_processes_that_want_the_same_cache(tmp_path):
    processes = [start(tmp_path, 0.05) for _ in range(2)]
    assert [process.wait(30) for process in processes] == [0, 0]
    assert len((tmp_path / "opened").read_text().split()) == 20  # the second waited
    assert len(folders(tmp_path)) == 1


def test_a_faster_host_wins(tmp_path, monkeypatch):
    """Where locks hold within a host only, another may publish the same cache first."""
    items = [images.Item("a.png", lambda: Image.new("RGB", (8, 8)), 0, "")]
    rename = Path.rename

    def late(self, target):
        monkeypatch.setattr(Path, "rename", rename)
        images.build(items, short_side=8, cache_dir=tmp_path / "other", label="x")
        (other,) = (tmp_path / "other").glob("x-*")
        rename(other, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    built = images.build(items, short_side=8, cache_dir=tmp_path / "mine", label="x")
    assert len(built) == 1
    assert len(folders(tmp_path / "mine")) == 1
