"""The whole table on tiny textures and photos: every stage, twice."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tables
from counted import Counted
from runs import fill, of_folder, photos, tiny

from ucjax import names
from ucjax.comparison import columns, ground
from ucjax.comparison.table import clean_of, drop, load
from ucjax.data.folder import stratified
from ucjax.errors import StaleError, UserError
from ucjax.files import manifest
from ucjax.report.finish import _shown, finish

ROWS = ("clean", "clean_original", "random", "uc")
COLUMNS = (
    "linear", "linear+jpeg50", "linear+mixup", "linear+grey:treat=both", "linear:labels=random-3",
    "linear:share=50",
)  # fmt: skip

# Clean files mixed with clean files are the clean files: those cells are one.
TRAINED = 2 * (len(ROWS) * len(COLUMNS) - 1)


def snapshot(folder):
    """Every file's bytes and modification time, but those that say where and when it ran."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("env.json", "config.json", "metrics.jsonl")
        and path.name not in ("table.json", "table.csv", "report.html")
    }  # fmt: skip


def contents(folder):
    """Every file's bytes, but the seconds that a row took."""
    return {k: v[0] for k, v in snapshot(folder).items() if not k.endswith("made.json")}


@pytest.fixture(scope="module")
def finished(mesh, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "work"
    config = tiny(workdir.parent, protections=ROWS, victims=COLUMNS, seeds=(0, 1))
    filled = fill(config, workdir, mesh)
    return config, workdir, filled, finish(filled)


def test_every_stage_leaves_its_files(finished):
    _, workdir, filled, said = finished
    for name in (
        "config.json", "env.json", "metrics.jsonl", "features/efficientnet_lite0.safetensors",
        "clusters/efficientnet_lite0-k3-seed0.safetensors", "protections/uc-seed0/given.json",
        "protections/uc-seed0/noise.safetensors", "protections/uc-seed0/training.json",
        "protections/uc-seed0/verification.json", "protections/uc-seed0/files/manifest.jsonl",
        "protections/uc-seed0/protector/protector.json", "table.json", "table.csv", "report.html",
        "protections/clean-seed0/files/manifest.jsonl",
    ):  # fmt: skip
        assert (workdir / name).is_file(), name
    for pattern in ("*.tmp", "checkpoint.safetensors", "cells/*.safetensors"):
        assert not list(workdir.rglob(pattern))
    assert len(list((workdir / "cells").iterdir())) == TRAINED
    assert f"report: {workdir / 'report.html'}" in said
    assert load(workdir) == filled.table
    assert (workdir / "table.csv").read_text() == filled.table.csv()
    assert json.loads((workdir / "env.json").read_text())["command"] == "test"
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 2 * TRAINED  # epochs of noise, of victims


def test_rows_hold_the_budget_on_disk_and_carry_the_noise_they_say(finished):
    _, workdir, _, _ = finished
    places = {name: workdir / "protections" / f"{name}-seed0" / "files" for name in ROWS}
    clean = pixels(places["clean"])
    delta = pixels(places["uc"]) - clean
    assert 0 < np.abs(delta).max() <= 16
    # Away from black and white, images of one cluster differ by the same noise.
    clusters = np.array([line["cluster"] for line in manifest.read_manifest(places["uc"])])
    free = (clean > 16) & (clean < 239)
    for cluster in np.unique(clusters):
        members = clusters == cluster
        values = np.where(free[members], delta[members], np.nan)
        if members.sum() > 1:
            seen = (~np.isnan(values)).sum(0) > 1
            spread = np.nanmax(values[:, seen], axis=0) - np.nanmin(values[:, seen], axis=0)
            assert spread.max() <= 1, "rounding apart, a cluster has one noise"
    random = pixels(places["random"]) - clean
    assert set(np.unique(np.abs(random[free]))) == {16}
    assert np.abs(np.corrcoef(random[0].ravel(), random[1].ravel())[0, 1]) < 0.1


def pixels(folder):
    return np.stack(arrays(folder))


def arrays(folder):
    return [np.asarray(item.open(), np.int16) for item in manifest.items_of(folder)]


def test_the_page_shows_the_row_that_the_verdict_speaks_of(finished):
    filled = finished[2]
    uc = next(row for row in filled.rows if row.label == "uc")
    rows = (*filled.rows, replace(uc, name=names.parse("uc:k=2", "row")))
    for accuracy, label in ((0.2, "uc:k=2"), (0.9, "uc")):
        filled_table = tables.table(tables.CLEAN, tables.UC, tables.entry("uc:k=2", accuracy))
        assert _shown(replace(filled, rows=rows, table=filled_table)).label == label
    unjudged = replace(filled.table, entries=())
    assert _shown(replace(filled, table=unjudged)).label == "uc"


def test_every_recipe_and_treatment_has_its_own_clean_cell(finished):
    table = finished[2].table
    assert [column.name for column in table.columns] == list(COLUMNS)
    assert len(table.entries) == len(ROWS) * len(COLUMNS)
    for entry in table.entries:
        clean = clean_of(table, entry.column)
        assert clean.column == entry.column
        assert drop(table, entry)[0] == pytest.approx(clean.mean() - entry.mean())
        assert entry.results.keys() == {(0, 0), (0, 1)}
    plain = {column: clean_of(table, column).results for column in COLUMNS}
    assert plain.pop("linear:share=50") == plain["linear"]
    assert len({str(results) for results in plain.values()}) == len(plain)


def test_a_second_run_costs_nothing_and_more_seeds_and_rows_add_cells(finished, mesh, monkeypatch):
    config, workdir, filled, _ = finished
    before, counted = snapshot(workdir), Counted(monkeypatch)
    again = fill(config, workdir, mesh)
    assert (snapshot(workdir), again.table) == (before, filled.table)
    assert counted.labels == []
    more = config.copy_and_resolve_references()
    more.update(protections=("clean", "random", "cluster_random"), victims=COLUMNS[:1])
    found = fill(more, workdir, mesh).table
    assert counted.labels == [f"cluster_random → linear, seeds 0/{seed}" for seed in (0, 1)]
    assert len(found.entries) == 3
    more.seeds = (0, 1, 2)
    fill(more, workdir, mesh)
    assert sorted(counted.labels[2:]) == [
        f"{row} → linear, seeds 0/2" for row in ("clean", "cluster_random", "random")
    ]
    after = snapshot(workdir)
    assert {k: after[k] for k in before} == before
    assert sum(name.startswith("cells/") for name in set(after) - set(before)) == 5


def test_noise_seeds_are_an_axis_of_their_own(finished, mesh, monkeypatch):
    config, workdir, _, _ = finished
    counted = Counted(monkeypatch)
    more = config.copy_and_resolve_references()
    more.update(protections=("clean", "random"), victims=COLUMNS[:1], noise_seeds=(0, 3))
    table = fill(more, workdir, mesh).table
    assert counted.labels == [f"random → linear, seeds 3/{seed}" for seed in (0, 1)]
    assert table.entry("clean", "linear").results.keys() == {(0, 0), (0, 1)}
    assert table.entry("random", "linear").results.keys() == {(0, 0), (0, 1), (3, 0), (3, 1)}
    one, other = (
        pixels(workdir / "protections" / f"random-seed{seed}" / "files") for seed in (0, 3)
    )
    assert (one != other).any()


def test_the_same_cell_is_copied_whoever_asks(finished, mesh, monkeypatch, tmp_path):
    """Another config, other names of the same row and victim, another work folder."""
    config, workdir, filled, _ = finished
    counted = Counted(monkeypatch)
    other = config.copy_and_resolve_references()
    other.noise.epochs, other.victim.momentum = 9, 0.5
    other.update(
        protections=("clean", "random:eps=16"),
        victims=("linear:momentum=0.9", "linear"),
        seeds=(1,),
    )
    table = fill(other, tmp_path / "work", mesh, reuse=[workdir]).table
    assert counted.labels == [f"{r} → linear, seeds 0/1" for r in ("clean", "random:eps=16")]
    for row, name in (("clean", "clean"), ("random", "random:eps=16")):
        ours = table.entry(name, "linear:momentum=0.9").results[0, 1]
        assert ours == filled.table.entry(row, "linear").results[0, 1]
    copies = {path.name: path.read_bytes() for path in (tmp_path / "work" / "cells").iterdir()}
    theirs = {path.name: path.read_bytes() for path in (workdir / "cells").iterdir()}
    assert len(copies) == 4
    assert sum(theirs.get(name) == data for name, data in copies.items()) == 2


def test_a_damaged_cell_stops_the_run(finished, mesh, tmp_path):
    config, workdir, _, _ = finished
    shutil.copytree(workdir, tmp_path / "work")
    victim = next((tmp_path / "work" / "cells").iterdir())
    victim.write_text("{}")
    with pytest.raises(UserError, match=f"{victim.name} is no cell of this victim"):
        fill(config, tmp_path / "work", mesh)


def test_lost_stages_are_made_again_with_the_same_bytes(finished, mesh, monkeypatch):
    config, workdir, _, _ = finished
    before, counted = contents(workdir), Counted(monkeypatch)
    cell = sorted((workdir / "cells").iterdir())[0].relative_to(workdir)
    for name in (
        "features/efficientnet_lite0.safetensors",
        "clusters/efficientnet_lite0-k3-seed0.safetensors",
        "protections/uc-seed0/noise.safetensors", "protections/uc-seed0/files/summary.json", cell,
    ):  # fmt: skip
        os.remove(workdir / name)
    fill(config, workdir, mesh)
    after = contents(workdir)
    # A cell that names another row of the same bytes first may say so.
    assert {k for k in before if after[k] != before[k]} - {str(cell)} == set()
    ours, theirs = (json.loads(x[str(cell)]) for x in (before, after))
    assert ours["result"] == theirs["result"]
    assert len(counted.labels) == 1


def test_a_workdir_of_another_config_is_refused_and_kept(finished, mesh):
    config, workdir, _, _ = finished
    before = snapshot(workdir)
    other = config.copy_and_resolve_references()
    other.noise.epsilon_255 = 8
    with pytest.raises(StaleError, match=r"noise.epsilon_255 = 16, this one has 8") as caught:
        fill(other, workdir, mesh)
    assert "\n" not in str(caught.value)
    assert snapshot(workdir) == before


def test_a_share_mixes_exactly_so_many_protected_files(finished, mesh, monkeypatch):
    config, workdir, _, _ = finished
    real, seen = columns.training_set, {}

    def training_set(row, clean, victim, labels, ground):
        found = real(row, clean, victim, labels, ground)
        seen[row.label, str(victim.name)] = found, victim.spec.crop
        return found

    monkeypatch.setattr(columns, "training_set", training_set)
    fill(config, workdir, mesh)
    crops = {key: images.center_crops(size) for key, (images, size) in seen.items()}
    plain, mixed = crops["random", "linear"], crops["random", "linear:share=50"]
    ours = (mixed == plain).all((1, 2, 3))
    theirs = (mixed == crops["clean", "linear"]).all((1, 2, 3))
    assert (ours ^ theirs).all()
    assert ours.sum() == len(ours) // 2 == 12
    labels = seen["clean", "linear"][0].labels
    for label in np.unique(labels):
        assert abs(ours[labels == label].sum() - (labels == label).sum() / 2) < 1
    assert not np.array_equal(ours, stratified(labels.tolist(), 0.5, config.seed))
    np.testing.assert_array_equal(crops["clean", "linear:share=50"], crops["clean", "linear"])
    assert {len(images) for images, _ in seen.values()} == {24}


def test_the_clean_share_alone_is_a_row(finished, mesh, monkeypatch):
    config, workdir, _, _ = finished
    real, seen = columns.training_set, {}

    def training_set(row, clean, victim, labels, ground):
        seen[row.label] = real(row, clean, victim, labels, ground)
        return seen[row.label]

    monkeypatch.setattr(columns, "training_set", training_set)
    more = config.copy_and_resolve_references()
    more.update(protections=("clean", "random", "absent"), victims=("linear", "linear:share=50"))
    table = fill(more, workdir, mesh).table
    assert table.entry("absent", "linear") is None
    alone = table.entry("absent", "linear:share=50")
    assert alone.results.keys() == {(0, 0), (0, 1)}
    # What is left is what a mixture leaves as it was.
    crops = {label: images.center_crops(32) for label, images in seen.items()}
    kept = (crops["random"] == crops["clean"]).all((1, 2, 3))
    np.testing.assert_array_equal(crops["absent"], crops["clean"][kept])
    np.testing.assert_array_equal(seen["absent"].labels, seen["clean"].labels[kept])
    assert len(seen["absent"]) == 12


def test_a_table_without_clean_files_says_so(finished, mesh, capsys):
    config, workdir, _, _ = finished
    more = config.copy_and_resolve_references()
    more.update(protections=("random",), victims=("linear", "linear:share=50"))
    # The clean share is that of the files as they are written, all the same.
    found = fill(more, workdir, mesh).table
    assert "no row is clean: by how much accuracy drops is not told" in capsys.readouterr().out
    assert drop(found, found.entries[0]) is None
    ours, theirs = (
        t.entry("random", "linear:share=50").results for t in (found, finished[2].table)
    )
    assert ours == theirs
    more.protections = ("clean_original", "random")
    fill(more, workdir, mesh)
    assert "no row is clean" not in capsys.readouterr().out


@pytest.mark.parametrize(("count", "k", "said"), [(60, 3, ""), (59, 3, "k=2"), (90, 10, "k=4")])
def test_small_clusters_are_called_few(count, k, said):
    line = ground._few(count, k)
    assert (said in line) if said else line == ""
    assert ground._few(20, 2) == ""  # there is no fewer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise__epsilon_255": 0}, "epsilon_255 is 0"),
        ({"noise__epsilon_255": 300}, "epsilon_255 is 300"),
        ({"noise__batch_size": 10}, "noise.batch_size is 10.* 4 devices"),
        ({"victim__batch_size": 10}, "victim.batch_size is 10.* 4 devices"),
        ({"data__crop": 80}, "data has a crop of 80 and a short side of 36"),
        ({"victim__crop": 80}, "crop is 80 and config.victim.short_side 36"),
        ({"data__source": "web"}, "web"),
        ({"files__geometry": "native"}, "'native' with data.source 'textures'"),
        ({"files__geometry": "square"}, "choose crop, or native"),
        ({"files__format": "gif"}, "files.format is 'gif': choose one of"),
        ({"clusters__k": 1}, "clusters.k is 1"),
        ({"modules": ("no_such_module",)}, "cannot import 'no_such_module'"),
        ({"protections": ("cleen",)}, "unknown protection 'cleen': did you mean clean"),
        ({"protections": ("uc:ep=8",)}, "unknown key of row uc 'ep': did you mean eps"),
        ({"protections": ("uc:eps=low",)}, "eps of row uc:eps=low is 'low': give a whole number"),
        ({"protections": ("uc:eps=0",)}, "epsilon_255 is 0"),
        ({"protections": ("uc:k=1",)}, "clusters.k is 1"),
        ({"protections": ("clean:eps=8",)}, "unknown key of row clean 'eps'"),
        ({"protections": ("clean", "clean")}, "protections names 'clean' twice"),
        ({"protections": ("folder",)}, "row 'folder' looks like folder=PATH"),
        ({"protections": ("uc=3",)}, "row 'uc=3' looks like uc"),
        ({"protections": ("uc+mixup",)}, "looks like uc"),
        ({"protections": ("random", "folder=x:label=random")}, "is called 'random', as another"),
        ({"protections": ("uc", "folder=x:label=clean")}, "is called 'clean', as a protection is"),
        ({"protections": ("folder=x:label=a", "folder=y:label=a")}, "is called 'a', as another"),
        ({"victims": ("resnet81",)}, "unknown model 'resnet81': did you mean resnet18"),
        ({"victims": ("linear+mixop",)}, "unknown recipe or treatment 'mixop': did you mean mixup"),
        ({"victims": ("linear+jpeg0",)}, "jpeg0' is written jpegN"),
        ({"victims": ("linear:epoch=3",)}, "unknown key of column linear 'epoch': did you mean ep"),
        ({"victims": ("linear:share=0",)}, "share=0: give a percentage"),
        ({"victims": ("linear:labels=givn",)}, "unknown label rule 'givn': did you mean given"),
        ({"victims": ("linear", "linear")}, "victims names 'linear' twice"),
        ({"protections": ("folder=/nowhere",)}, "/nowhere is not a folder"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_input_is_one_line(settings, message, mesh, tmp_path, monkeypatch):
    counted = Counted(monkeypatch)
    with pytest.raises(UserError, match=message) as caught:
        fill(tiny(tmp_path, **settings), tmp_path / "work", mesh)
    assert "\n" not in str(caught.value)
    assert counted.labels == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "photos"),
        (lambda root: root.mkdir(), "photos"),
        (lambda root: photos(root, 3), r"10 clusters of [23] images"),
    ],
    ids=["missing", "empty", "fewer photos than clusters"],
)
def test_folders_that_cannot_be_protected_are_one_line(make, message, mesh, tmp_path):
    root = tmp_path / "photos"
    make(root)
    config = of_folder(root, tmp_path, clusters__k=10, protections=("cluster_random",))
    with pytest.raises(UserError, match=message) as caught:
        fill(config, tmp_path / "work", mesh)
    assert "\n" not in str(caught.value)


def test_a_folder_with_a_corrupt_file_is_protected_at_native_size(mesh, tmp_path, capsys):
    root = tmp_path / "photos"
    photos(root, 20)
    (root / "cat" / "broken.jpg").write_bytes(b"not a picture")
    config = of_folder(root, tmp_path, protections=("clean", "clean_original", "cluster_random"))
    table = fill(config, tmp_path / "work", mesh).table
    assert "broken.jpg" in capsys.readouterr().out
    written = arrays(tmp_path / "work" / "protections" / "cluster_random-seed0" / "files")
    assert {image.shape for image in written} == {(60, 40, 3)}
    assert len(written) == table.train_count == 20 - table.columns[0].test_count
    # Native files of the clean row hold the originals' pixels: one cell for both.
    clean, original = (table.entry(x, "linear") for x in ("clean", "clean_original"))
    assert clean.results == original.results
    assert len(list((tmp_path / "work" / "cells").iterdir())) == 2


def test_photos_that_changed_since_are_refused(mesh, tmp_path):
    root = tmp_path / "photos"
    photos(root, 20)
    config = of_folder(root, tmp_path, protections=("clean",))
    fill(config, tmp_path / "work", mesh)
    photos(root / "more", 4)
    with pytest.raises(StaleError, match="made from other images than now") as caught:
        fill(config, tmp_path / "work", mesh)
    assert "\n" not in str(caught.value)


def test_unlabelled_photos_are_protected_without_victims(mesh, tmp_path, monkeypatch):
    root = tmp_path / "photos"
    photos(root, 20, folders=("",), suffix=".png")
    counted = Counted(monkeypatch)
    config = of_folder(root, tmp_path, protections=("clean", "random"))
    filled = fill(config, tmp_path / "work", mesh)
    assert (filled.table.entries, filled.table.train_count, counted.labels) == ((), 20, [])
    assert not (tmp_path / "work" / "cells").exists()
    assert "well the protection holds is not measured here" in finish(filled)


def test_a_label_rule_gives_unlabelled_photos_victims(mesh, tmp_path):
    root = tmp_path / "photos"
    photos(root, 20, folders=("",), suffix=".png")
    victims = ("linear", "linear:labels=clusters-3-packaged_clip")
    config = of_folder(
        root, tmp_path, protections=("clean", "random"), victims=victims,
        data__split_unlabelled=True,
    )  # fmt: skip
    table = fill(config, tmp_path / "work", mesh).table
    assert table.train_count == 16
    assert [(c.name, len(c.classes), c.test_count) for c in table.columns] == [(victims[1], 3, 4)]
    assert {entry.column for entry in table.entries} == {victims[1]}
