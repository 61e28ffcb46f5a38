"""Real SIGKILLs in every stage: the rerun ends with the bytes of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from ucjax.comparison import table

ROOT = Path(__file__).parents[2]
# What appears in the workdir shortly before the moment to kill at.
MOMENTS = [
    ".cache/textures-train*",
    "protections/clean-seed0/files/images/*/0001.png",
    "features/tiny.safetensors",
    "clusters/tiny-k3-seed0.safetensors",
    "protections/uc-seed0/noise.safetensors",
    "protections/uc-seed0/files/images/*/0001.png",
    "cells/*.json",
]


def start(folder, compiled):
    command = [sys.executable, "-m", "ucjax.main", "--config=configs/smoke.py", *tiny.JOB]
    command += [f"--workdir={folder}", f"--config.data.cache={folder / '.cache'}"]
    command += ["--config.availability=False"]
    environment = os.environ | {"UCJAX_CACHE": str(compiled), "PYTHONPATH": str(tiny.FOLDER)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def results(folder):
    """All bytes but those that tell where, when and how long, and the page and table of them."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and ".cache" not in path.parts
        and path.name not in ("env.json", "metrics.jsonl", "config.json", "report.html")
        and path.name not in ("made.json", "table.json", "table.csv")
    }


def run_and_kill(folder, compiled, pattern):
    """Starts the job and kills it when `pattern` appears; returns whether it was still running."""
    process = start(folder, compiled)
    while process.poll() is None and not list(folder.glob(pattern)):
        time.sleep(0.002)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return alive


def finish(folder, compiled):
    process = start(folder, compiled)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output.decode()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(tmp_path, compiled):
    finish(tmp_path / "whole", compiled)
    kills = sum(run_and_kill(tmp_path / "killed", compiled, pattern) for pattern in MOMENTS)
    assert kills == len(MOMENTS), "the run was over before the last kill"
    finish(tmp_path / "killed", compiled)
    whole, killed = results(tmp_path / "whole"), results(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert [name for name in whole if whole[name] != killed[name]] == []
    tables = [table.load(tmp_path / name) for name in ("whole", "killed")]
    assert tables[0].entries == tables[1].entries
