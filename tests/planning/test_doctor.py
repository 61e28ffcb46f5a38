"""The doctor on this installation, and on broken ones."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ucjax.cli import command
from ucjax.planning import doctor
from ucjax.surrogates import efficientnet_lite

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
    code, said = run(capsys, "--json")
    report = json.loads(said)
    assert (code, report["problems"]) == (0, [])
    assert efficientnet_lite.SHA256 in report["sections"]["weights"]["efficientnet_lite0"]
    assert report["sections"]["packages"]["jax"] == metadata.version("jax")
    assert len(report["sections"]["devices"]) == 4
    code, said = run(capsys)
    assert code == 0
    assert said.endswith("no problems found\n")
    assert all(name in said for name in report["sections"])


def test_no_home_folder_in_what_is_pasted(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "sets"))
    for arguments in ([], ["--json"]):
        _, said = run(capsys, *arguments)
        assert str(tmp_path) not in said
        assert "~/sets" in said


def test_a_tampered_weight_file_is_flagged(capsys, monkeypatch, tmp_path):
    original = efficientnet_lite._find("").weights[0]
    copy = tmp_path / "packages" / efficientnet_lite._PACKAGE / efficientnet_lite._FILE
    copy.parent.mkdir(parents=True)
    (copy.parents[1] / "__init__.py").touch()
    data = bytearray(original.read_bytes())
    data[len(data) // 2] ^= 1
    copy.write_bytes(data)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    code, said = run(capsys, "--json")
    (problem,) = json.loads(said)["problems"]
    assert code == 1
    assert f"expected {efficientnet_lite.SHA256}" in problem
    assert str(tmp_path) not in problem


def test_old_and_missing_packages_are_named_with_the_cure(capsys, monkeypatch):
    real = metadata.requires("ucjax")
    monkeypatch.setattr(metadata, "requires", lambda _: [*real, "jax>=99", "no-such-package>=1"])
    code, said = run(capsys)
    assert code == 1
    assert f"package jax is {metadata.version('jax')}, needed is >=99" in said
    assert "run pip install 'no-such-package>=1'" in said


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
    assert done.stdout.count("packages\n") == 2, "process 0 alone speaks: packages, optional ones"


def test_wrong_sums_and_uneven_processes_are_problems(monkeypatch, mesh):
    problems: list[str] = []
    monkeypatch.setattr(doctor.parallel, "to_host", lambda value: 3.0)
    doctor._processes(problems)
    assert problems == ["a sum over 4 devices is 3: do not trust results here"]
