"""The same job as one process and as a pod of two, on the same number of devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from ucjax.comparison import table

ROOT = Path(__file__).parents[2]
JOB = [sys.executable, "-m", "ucjax.main", "--config=configs/smoke.py", *tiny.JOB]


def start(command):
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tiny.FOLDER)},
        capture_output=True,
        text=True,
        timeout=400,
    )


def pod(arguments, *, processes=2, devices=2):
    launcher = [sys.executable, "launch/local_pod.py", f"--processes={processes}"]
    return start([*launcher, f"--devices={devices}", "--", *arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The workdirs of the job as one process with one device, and as two with two each."""
    folder = tmp_path_factory.mktemp("pod")
    cache = f"--config.data.cache={folder / 'cache'}"
    alone = start([*JOB, f"--workdir={folder / 'alone'}", cache])
    assert alone.returncode == 0, alone.stderr
    together = pod([*JOB, f"--workdir={folder / 'pod'}", cache])
    assert together.returncode == 0, together.stdout
    return folder / "alone", folder / "pod", together.stdout


def test_clusters_noise_and_victims_equal_those_of_one_device(runs):
    alone, together, _ = runs
    name = "clusters/tiny-k3-seed0.safetensors"
    one, two = (load_file(f / name) for f in (alone, together))
    np.testing.assert_array_equal(one["assignment"], two["assignment"])
    np.testing.assert_allclose(one["centers"], two["centers"], rtol=1e-4, atol=1e-5)
    name = "protections/uc-seed0/training.json"
    one, two = (json.loads((f / name).read_text()) for f in (alone, together))
    np.testing.assert_allclose(one["loss"], two["loss"], rtol=2e-3)
    # The clean row, whose files are the same to the byte: Adam turns rounding into other pixels of
    # the noise where its gradient is next to nothing, and so into other protected files.
    tables = [table.load(folder) for folder in (alone, together)]
    one, two = (found.entry("clean", "tiny").results[0, 0].curve for found in tables)
    # The first epoch's loss; rounding grows along a training.
    np.testing.assert_allclose(one[0].train_loss, two[0].train_loss, rtol=1e-3)
    # Both ask for the same cell of it.
    cells = [{path.name for path in (f / "cells").iterdir()} for f in (alone, together)]
    assert len(cells[0]) == len(cells[1]) == 2
    assert cells[0] & cells[1]


def test_process_0_alone_writes_and_speaks(runs):
    _, together, output = runs
    assert (together / "report.html").is_file()
    lines = (together / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == len(set(lines)) == 2 + 2 * 2
    assert json.loads((together / "env.json").read_text())["processes"] == 2
    spoken = [line for line in output.splitlines() if "report:" in line or "clusters tiny" in line]
    assert len(spoken) == 2
    assert all(line.startswith("[0] ") for line in spoken)


def test_one_failing_process_stops_all_with_a_message():
    code = "import sys, time; sys.exit(3) if '--process_id=1' in sys.argv else time.sleep(300)"
    result = pod([sys.executable, "-c", code])
    assert result.returncode == 3
    assert "process 1 failed with exit code 3: stopping all" in result.stdout


def test_a_mistake_stops_the_whole_pod_with_its_line(tmp_path):
    result = pod([*JOB, f"--workdir={tmp_path}", "--config.noise.batch_size=6"])
    assert result.returncode == 2
    assert "config.noise.batch_size is 6, not divisible by the 4 devices" in result.stdout


def test_processes_that_cannot_meet_say_so():
    missing = [*JOB, "--coordinator=127.0.0.1:1", "--processes=2", "--process_id=7"]
    result = start(missing)
    assert result.returncode == 2
    assert "--process_id=7 is not one of 0 to 1" in result.stderr
