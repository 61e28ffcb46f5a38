"""What `ucjax export` refuses, keeps and leaves behind."""

import subprocess
import sys

import pytest
from loaders import LABELS, NAMES, expected, protect, write_manifest
from pictures import content

from ucjax.cli import command
from ucjax.errors import UserError
from ucjax.exports import TARGETS
from ucjax.exports.export import export
from ucjax.files.manifest import read_manifest


@pytest.fixture
def out(tmp_path):
    return protect(tmp_path)


# Refusals


def refused(out, destination, target="webdataset"):
    with pytest.raises(UserError) as error:
        export(out, target, destination)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_folders_that_are_not_finished(out, tmp_path):
    destination = tmp_path / "export"
    assert "there is no folder" in refused(tmp_path / "none", destination)
    assert "there is no folder" in refused(out / "summary.json", destination)
    assert "no finished images" in refused(tmp_path / "photos", destination)
    records = read_manifest(out)
    write_manifest(out, records[1:])
    assert "damaged (4 of 5 images)" in refused(out, destination)
    for change, message in (
        ({"output": "../../photos/0.png"}, "line 1: output '../../photos/0.png' leads out"),
        ({"output": "/etc/passwd"}, "line 1: output '/etc/passwd' is no relative path"),
        ({"class": "dogs"}, "class 'dogs', which is not among the 2"),
        ({"class": 2}, "line 1: class is 2, not a text or null"),
    ):
        write_manifest(out, [records[0] | change, *records[1:]])
        assert message in refused(out, destination)
    del records[0]["output_sha256"]
    write_manifest(out, records)
    assert "an image without 'output_sha256'" in refused(out, destination)
    assert not destination.exists()


@pytest.mark.parametrize("target", TARGETS)
def test_changed_and_missing_files(target, out, tmp_path):
    path = out / "images" / "Hündchen" / "a.png"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert f"{path} has changed since it was written" in refused(out, tmp_path / "export", target)
    path.unlink()
    assert f"cannot read {path}: No such file" in refused(out, tmp_path / "export", target)
    assert {p.name for p in tmp_path.iterdir()} == {"photos", "cache", "out"}


def test_destinations_that_hold_something_else(out, tmp_path):
    before = content(tmp_path)
    for inside in (out, out / "export", out / "images" / "x" / ".." / "y"):
        assert "lies inside" in refused(out, inside)
    assert "holds something else" in refused(out, tmp_path)
    assert "holds something else" in refused(out, tmp_path / "photos")
    assert "holds something else" in refused(out, tmp_path / "photos" / "0.png")
    assert "cannot write" in refused(out, tmp_path / "photos" / "0.png" / "x")
    assert "unknown target 'zip'" in refused(out, tmp_path / "export", "zip")
    assert content(tmp_path) == before


def test_an_export_that_is_there_is_kept(out, tmp_path):
    destination = tmp_path / "export"
    destination.mkdir()  # an empty folder will do
    first = export(out, "webdataset", destination)
    before = {path: path.stat().st_mtime_ns for path in destination.iterdir()}
    assert export(out, "webdataset", destination) == first
    assert {path: path.stat().st_mtime_ns for path in destination.iterdir()} == before
    assert "to another target" in refused(out, destination, "imagefolder")
    other = protect(tmp_path / "other", NAMES[:2], LABELS[:2])
    assert "an export of other images" in refused(other, destination)


def test_a_missing_package_is_named(out, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "ucjax.exports.huggingface", raising=False)
    message = refused(out, tmp_path / "export", "hf")
    assert message == "--to hf needs pyarrow: pip install 'ucjax[export]'"


# Interruptions


class Stop:
    def __init__(self, label, total):
        assert (label, total) == ("exporting", 5)

    def update(self, done):
        if done == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("target", TARGETS)
def test_an_interrupted_export_leaves_nothing(target, out, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        export(out, target, tmp_path / "export", Stop)
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "cache", "out"}


def test_a_killed_export_looks_unfinished_and_is_cleared_away(out, tmp_path):
    program = """
import os, signal, sys
from pathlib import Path
from ucjax.exports.export import export

class Kill:
    def __init__(self, label, total): pass
    def update(self, done): done == 3 and os.kill(os.getpid(), signal.SIGKILL)

export(Path(sys.argv[1]), "imagefolder", Path(sys.argv[2]), Kill)
"""
    command = [sys.executable, "-c", program, str(out), str(tmp_path / "export")]
    assert subprocess.run(command, timeout=60).returncode == -9
    assert not (tmp_path / "export").exists()
    neighbour = tmp_path / ".export.2.export-1"
    neighbour.mkdir()
    assert len([*tmp_path.glob(".export.export-*/**/*.png")]) >= 2
    export(out, "imagefolder", tmp_path / "export")
    assert {path.name for path in tmp_path.iterdir()} == {
        "photos", "cache", "out", "export", neighbour.name,
    }  # fmt: skip


# The command


def test_the_command(out, tmp_path, capsys):
    destination = tmp_path / "my export"
    assert command.main(["export", str(out), "--to", "webdataset", str(destination)]) == 0
    shown = capsys.readouterr()
    size = sum(len(row.data) for row in expected(out))
    first, second = shown.out.splitlines()
    assert first == f"{destination}: 5 images in 2 classes, {size:,} bytes"
    assert second.startswith("open it with webdataset.WebDataset('")
    assert shown.err == ""
    assert command.main(["export", str(out), "--to", "hf", str(destination)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {destination} holds an export of other")


def test_no_jax_is_imported():
    program = "import sys, ucjax.exports.export, ucjax.cli.export; print('jax' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program]) == b"False\n"
