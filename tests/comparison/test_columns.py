"""What a column makes of a row's files before a victim sees them."""

import numpy as np
from counted import Counted
from runs import fill, tiny

from ucjax.comparison import columns
from ucjax.victims import training
from ucjax.victims.training import EpochRecord, VictimResult

COPY = "linear:purify=cp -R {in}/. {out}"
LEAK = "linear+pair_leak24"


def test_purified_and_leaked_files_in_a_table(mesh, tmp_path, monkeypatch, capsys):
    config = tiny(tmp_path, protections=("clean", "cluster_random"), victims=("linear", COPY, LEAK))
    real, seen = columns.training_set, {}

    def training_set(row, clean, victim, labels, ground):
        found = real(row, clean, victim, labels, ground)
        seen[row.label, str(victim.name)] = found.center_crops(victim.spec.crop).astype(int)
        return found

    monkeypatch.setattr(columns, "training_set", training_set)
    counted = Counted(monkeypatch)
    table = fill(config, tmp_path / "work", mesh).table
    # A purifier that gives back what it is given changes no cell.
    np.testing.assert_array_equal(seen["cluster_random", COPY], seen["cluster_random", "linear"])
    for row in ("clean", "cluster_random"):
        assert table.entry(row, COPY).results == table.entry(row, "linear").results
    assert len(counted.labels) <= 3  # those of clean files, protected files, and what leaks leave
    assert capsys.readouterr().out.count("pictures through cp in") == 2
    # Every picture has leaked: what is left are pixels at black and white.
    clean, left = seen["clean", "linear"], seen["cluster_random", LEAK]
    put_on = np.abs(seen["cluster_random", "linear"] - clean).mean()
    assert np.abs(left - clean).mean() < 0.2 * put_on
    np.testing.assert_array_equal(seen["clean", LEAK], clean)
    fill(config, tmp_path / "work", mesh)
    assert "pictures through" not in capsys.readouterr().out


def test_a_probe_of_clean_files_is_another_cell(mesh, tmp_path, monkeypatch):
    """What the encoder sees is protected either way; what the probe learns labels from is not."""
    victims = ("simclr_rn18", "simclr_rn18:probe=clean")
    config = tiny(tmp_path, protections=("clean", "random"), victims=victims, seeds=(0,))
    trained = {}

    def train_stack(cells, spec, **options):
        for cell in cells:
            trained[cell.label] = cell
        curve = (EpochRecord(1.0, 0.5, 0.5),)
        return [VictimResult(0.5, 0.5, curve, (None,)) for _ in cells]

    monkeypatch.setattr(training, "train_stack", train_stack)
    fill(config, tmp_path / "work", mesh)
    files, probed = (trained[f"random → {name}, seeds 0/0"] for name in victims)
    clean = trained["clean → simclr_rn18, seeds 0/0"]
    assert files.pretrain is None
    np.testing.assert_array_equal(probed.pretrain.rows, files.train.rows)
    np.testing.assert_array_equal(probed.train.rows, clean.train.rows)
    assert (probed.pretrain.rows != probed.train.rows).any()
    np.testing.assert_array_equal(probed.train.labels, files.train.labels)
    # As many cells as differ: of clean files both are asked, and each once.
    assert len(trained) == len(list((tmp_path / "work" / "cells").iterdir())) == 4
