"""The examples do what they say, on small pictures."""

import importlib
from types import SimpleNamespace

import numpy as np
import odd_files
import pytest

import ucjax
from ucjax import config
from ucjax.clusters.kmeans import Clusters
from ucjax.names import parse
from ucjax.protections import table
from ucjax.protections.table import PROTECTIONS

TINY = {"data__short_side": 36, "data__crop": 32, "clusters__k": 3}
DRAWN = {"protection": "cluster_random", **TINY}  # which need not be trained
VICTIM = {
    "victim__short_side": 36,
    "victim__crop": 32,
    "victim__epochs": 2,
    "victim__batch_size": 8,
    "availability": False,
    "victims": ("linear",),
}


def example(name):
    return importlib.import_module(f"examples.{name}")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("examples")
    for number in range(12):
        path = root / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(40, 50, seed=number).save(path)
    example("protect_folder").main(str(root / "photos"), str(root / "out"), **DRAWN)
    return root / "photos", root / "out"


def test_a_folder_is_protected(folders, capsys):
    photos, out = folders
    example("protect_folder").main(str(photos), str(out), **DRAWN)
    said = capsys.readouterr().out
    assert "protected 12, not 0, largest change 16/255" in said
    assert "12 files, 0 faults" in said
    (out / "images" / "a" / "0.png").write_bytes((photos / "a" / "0.png").read_bytes())
    assert ucjax.verify(out, photos).failures


def test_anybody_s_files_are_compared(folders, capsys):
    photos, out = folders
    found = example("compare_files").main(str(photos), str(out / "images"), **VICTIM, **TINY)
    assert [line.label for line in found.table.lines] == ["clean", "random", "theirs"]
    assert "guessing 0.500" in capsys.readouterr().out


def test_a_protection_of_ones_own_is_a_row(monkeypatch):
    example("own_protection")
    monkeypatch.setitem(PROTECTIONS, "stripes", PROTECTIONS.pop("stripes"))  # for this test alone
    row = parse("stripes:period=2:eps=8", "row")
    settings, options = table.resolve(row, config.with_settings(config.photos(), TINY))
    clusters = Clusters(np.zeros((3, 4), np.float32), np.array([2, 0, 1, 0], np.int32), 0.0, 1)
    noise = PROTECTIONS["stripes"].fit(
        SimpleNamespace(config=settings, options=options, seed=1, clusters=lambda: clusters)
    )
    grey = np.full((32, 32, 3), 128, np.uint8)
    changes = [noise.add(i, grey, whole=False).astype(int) - 128 for i in range(4)]
    for change in changes:
        assert np.unique(np.abs(change)) == 8
        np.testing.assert_array_equal(change[:, :28], -change[:, 2:30])  # half a period on
        np.testing.assert_array_equal(change[0], change[-1])
    np.testing.assert_array_equal(changes[1], changes[3])
    assert noise.cluster(0) == 2
    assert len({noise.sha256(i) for i in range(4)}) > 1
