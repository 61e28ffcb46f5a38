"""The doctor on this installation, and on broken ones."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ucjax.cli import command
from ucjax.planning import doctor

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A home and a cache of its own: nothing of the developer's is looked at."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UCJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def run(capsys, *arguments):
    code = command.main(["doctor", *arguments])
    return code, capsys.readouterr().out


def test_a_sound_installation_has_no_problems(capsys):
    code, said = run(capsys)
    assert code == 0
    assert said.endswith("no problems found\n")
    assert f"  jax: {metadata.version('jax')}\n" in said
    assert re.findall(r"  cpu \d: cpu", said) == [f"  cpu {i}: cpu" for i in range(4)]


def test_no_home_folder_in_what_is_pasted(capsys, monkeypatch, tmp_path):
    _, said = run(capsys)
    assert str(tmp_path) not in said
    assert "decoded images: ~/cache/images" in said
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    code, said = run(capsys)
    assert code == 1
    assert "the cache ~/cache cannot be written: set UCJAX_CACHE to another folder" in said


def test_programs_that_others_may_write_are_a_problem(capsys, cache):
    (cache / "xla").mkdir(parents=True)
    (cache / "xla").chmod(0o777)
    code, said = run(capsys)
    assert code == 1
    assert re.search(r"problem: others may write to ~/cache/xla.*chmod 700", said)


def test_no_device_is_a_problem(capsys):
    # In a process of its own: devices are found once.
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    program = "import sys; from ucjax.cli import command; sys.exit(command.main(['doctor']))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "problem: JAX finds no device" in done.stdout


def test_a_pod_maps_its_processes_and_sums():
    launcher = [sys.executable, "launch/local_pod.py", "--processes=2", "--devices=2", "--"]
    doctor_ = [sys.executable, "-m", "ucjax", "doctor", "--multihost"]
    done = subprocess.run(
        [*launcher, *doctor_], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
    assert "[0]   processes: 2, this is 0" in done.stdout
    for process in (0, 1):
        assert f"process {process}: 2 × cpu" in done.stdout
    assert re.search(r"psum: 4 devices, \d+\.\d+ ms", done.stdout)
    assert "no problems found" in done.stdout
    assert done.stdout.count("devices\n") == 1, "process 0 alone speaks"


def test_wrong_sums_and_uneven_processes_are_problems(monkeypatch, mesh):
    problems: list[str] = []
    monkeypatch.setattr(doctor.parallel, "to_host", lambda value: 3.0)
    doctor._processes(problems)
    assert problems == ["a sum over 4 devices is 3: do not trust results here"]
