"""The whole program on tiny textures: every stage, twice."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from configs import smoke
from ucjax import pipeline
from ucjax.cli.command import main
from ucjax.errors import UserError
from ucjax.files import protect as protection
from ucjax.job import ARMS


def tiny(**data):
    c = smoke.get_config()
    c.data.update(data)
    return c


def snapshot(folder):
    """Every file's bytes and modification time, but those that say where and when it ran."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("env.json", "config.json", "metrics.jsonl")
        and not path.name.startswith("report.")
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(mesh, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "work"
    config = tiny(cache=str(workdir.parent / "cache"))
    config.victim.update(arms=ARMS, seeds=(0, 1))
    report = pipeline.run(config, workdir, command=["test"], mesh=mesh)
    return config, workdir, report


def test_every_stage_leaves_its_files(finished):
    _, workdir, report = finished
    assert report == workdir / "report.html"
    for name in (
        "config.json", "env.json", "metrics.jsonl", "features.safetensors",
        "clusters/clusters.safetensors", "noise/protector.safetensors", "noise/protector.json",
        "protected/manifest.jsonl", "verification.json", "controls/clean/manifest.jsonl",
        "victims/protected-seed1.json", "report.html", "report.json",
    ):  # fmt: skip
        assert (workdir / name).is_file(), name
    assert not list(workdir.rglob("*.tmp"))
    assert not list(workdir.rglob("checkpoint.safetensors"))
    results = json.loads((workdir / "report.json").read_text())
    assert {arm["name"] for arm in results["arms"]} == set(ARMS)


def test_arms_hold_the_budget_on_disk_and_carry_the_noise_they_say(finished):
    _, workdir, _ = finished
    clean = pixels(workdir / "controls" / "clean")
    manifest = read_manifest(workdir / "protected")
    delta = pixels(workdir / "protected") - clean
    assert 0 < np.abs(delta).max() <= 16
    # Away from black and white, images of one cluster differ by the same noise.
    clusters = np.array([line["cluster"] for line in manifest])
    free = (clean > 16) & (clean < 239)
    for cluster in np.unique(clusters):
        members = clusters == cluster
        values = np.where(free[members], delta[members], np.nan)
        if members.sum() > 1:
            spread = np.nanmax(values, axis=0) - np.nanmin(values, axis=0)
            assert np.nanmax(spread) <= 1, "rounding apart, a cluster has one noise"
    random = pixels(workdir / "controls" / "random") - clean
    assert set(np.unique(np.abs(random[free]))) == {16}
    assert np.abs(np.corrcoef(random[0].ravel(), random[1].ravel())[0, 1]) < 0.1


def pixels(folder):
    return np.stack(arrays(folder))


def arrays(folder):
    return [np.asarray(item.open(), np.int16) for item in protection.items_of(folder)]


def read_manifest(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_a_second_run_costs_nothing_and_more_seeds_add_victims(finished, mesh):
    config, workdir, _ = finished
    before = snapshot(workdir)
    pipeline.run(config, workdir, command=["test"], mesh=mesh)
    assert snapshot(workdir) == before
    more = config.copy_and_resolve_references()
    more.victim.seeds = (0, 1, 2)
    pipeline.run(more, workdir, command=["test"], mesh=mesh)
    after = snapshot(workdir)
    assert {k: after[k] for k in before} == before
    assert len(set(after) - set(before)) == 4


def test_the_report_command_writes_it_again_and_nothing_else(finished, capsys):
    _, workdir, report = finished
    before, page = snapshot(workdir), report.read_bytes()
    report.unlink()
    assert main(["report", str(workdir)]) == 0
    assert "cluster random" in capsys.readouterr().out
    assert snapshot(workdir) == before
    assert len(report.read_bytes()) == pytest.approx(len(page), rel=0.01)
    assert main(["report", str(workdir.parent)]) == 2
    assert "holds no finished run" in capsys.readouterr().err


def test_a_lost_stage_is_made_again_with_the_same_bytes(finished, mesh):
    config, workdir, _ = finished
    before = {k: v[0] for k, v in snapshot(workdir).items()}
    for name in ("noise/protector.json", "victims/clean-seed0.json"):
        os.remove(workdir / name)
    pipeline.run(config, workdir, command=["test"], mesh=mesh)
    after = {k: v[0] for k, v in snapshot(workdir).items()}
    assert {k for k in before if after[k] != before[k]} == set()


def test_a_workdir_of_another_config_is_refused_and_kept(finished, mesh):
    config, workdir, _ = finished
    before = snapshot(workdir)
    other = config.copy_and_resolve_references()
    other.noise.epsilon_255 = 8
    with pytest.raises(UserError, match=r"noise.epsilon_255 = 16, this one has 8") as caught:
        pipeline.run(other, workdir, command=["test"], mesh=mesh)
    assert "\n" not in str(caught.value)
    assert snapshot(workdir) == before


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("noise", {"epsilon_255": 0}, "epsilon_255 is 0"),
        ("noise", {"epsilon_255": 300}, "epsilon_255 is 300"),
        ("noise", {"batch_size": 10}, "noise.batch_size is 10.* 4 devices"),
        ("victim", {"batch_size": 10}, "victim.batch_size is 10.* 4 devices"),
        ("victim", {"arms": ("cleen",)}, "'cleen' is not one of clean"),
        ("data", {"crop": 80}, "data.crop is 80 and config.data.short_side 36"),
        ("data", {"source": "web"}, "web"),
        ("surrogate", {"name": "vgg"}, "unknown surrogate 'vgg'"),
        ("surrogate", {"path": "/nowhere/weights.safetensors"}, "/nowhere"),
        ("protect", {"geometry": "native"}, "'native' with data.source 'textures'"),
        ("protect", {"geometry": "square"}, "choose crop, or native"),
        ("clusters", {"k": 1}, "clusters.k is 1"),
    ],
)
def test_bad_input_is_one_line(section, change, message, mesh, tmp_path):
    config = tiny(cache=str(tmp_path / "cache"))
    config[section].update(change)
    with pytest.raises(UserError, match=message) as caught:
        pipeline.run(config, tmp_path / "work", command=["test"], mesh=mesh)
    assert "\n" not in str(caught.value)


def photos(root, count, size=(60, 40)):
    rng = np.random.default_rng(0)
    for i in range(count):
        path = root / ("cat", "dög 2")[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def run_folder(root, tmp_path, mesh, k=3):
    cache = str(tmp_path / "cache")
    config = tiny(source="folder", root=str(root), train_count=0, test_count=0, cache=cache)
    config.protect.geometry = "native"
    config.clusters.k = k
    return pipeline.run(config, tmp_path / "work", command=["test"], mesh=mesh)


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
    with pytest.raises(UserError, match=message) as caught:
        run_folder(root, tmp_path, mesh, k=10)
    assert "\n" not in str(caught.value)


def test_a_folder_with_a_corrupt_file_is_protected_at_native_size(mesh, tmp_path, capsys):
    root = tmp_path / "photos"
    photos(root, 20)
    (root / "cat" / "broken.jpg").write_bytes(b"not a picture")
    run_folder(root, tmp_path, mesh)
    assert "broken.jpg" in capsys.readouterr().out
    shapes = {image.shape for image in arrays(tmp_path / "work" / "protected")}
    assert shapes == {(60, 40, 3)}


def test_photos_that_changed_since_are_refused(mesh, tmp_path):
    root = tmp_path / "photos"
    photos(root, 20)
    run_folder(root, tmp_path, mesh)
    photos(root / "more", 4)
    with pytest.raises(UserError, match="not those that"):
        run_folder(root, tmp_path, mesh)


def test_unlabelled_photos_are_protected_without_victims(mesh, tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(9):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(root / f"{i}.png")
    report = run_folder(root, tmp_path, mesh)
    assert report.is_file()
    assert not (tmp_path / "work" / "victims").exists()
