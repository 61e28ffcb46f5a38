"""Anybody's files: matched by name, and a wrong folder is an error and no result."""

import shutil

import numpy as np
import pytest
from counted import Counted
from PIL import Image, ImageFilter
from runs import fill, of_folder, photos

from ucjax.comparison import foreign
from ucjax.errors import UserError
from ucjax.files import fidelity

COUNT = 40  # photos, of which 32 are trained on


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("foreign") / "photos"
    photos(root, COUNT, suffix=".png")
    return root


def changed(clean, folder, change, rename=lambda name: name, **options):
    """Writes every clean picture, changed, to the folder."""
    for path in sorted(clean.rglob("*.png")):
        target = folder / rename(path.relative_to(clean).as_posix())
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            change(image.convert("RGB")).save(target, **options)
    return folder


def brighter(levels):
    return lambda image: image.point(lambda value: min(255, value + levels))


def row(folder, label="theirs"):
    return f"folder={folder}:label={label}"


def compare(clean, folder, tmp_path, mesh, *others, **settings):
    config = of_folder(clean, tmp_path, protections=("clean", *others, row(folder)), **settings)
    return fill(config, tmp_path / "work", mesh).table


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"train/{name}",
        lambda name: name.replace(".png", ".webp"),
        lambda name: f"train/{name.replace('.png', '.tiff')}",
    ],
    ids=["the same name", "train/", "another extension", "both"],
)
def test_files_are_matched_by_name(rename, clean, tmp_path):
    names = [path.relative_to(clean).as_posix() for path in clean.rglob("*.png")]
    folder = tmp_path / "theirs"
    for name in [*names, "stranger.png"]:
        (folder / rename(name)).parent.mkdir(parents=True, exist_ok=True)
        (folder / rename(name)).write_bytes(b"")
    found = foreign.match(folder, names)
    assert found.paths == {name: folder / rename(name) for name in names}


def test_the_exact_name_is_preferred_and_ambiguous_stems_are_not_guessed(tmp_path):
    for name in ("a.jpg", "a.png", "b.jpg", "b.webp"):
        (tmp_path / name).write_bytes(b"")
    assert foreign.match(tmp_path, ["a.jpg"]).paths["a.jpg"].name == "a.jpg"
    with pytest.raises(UserError, match=r"has no file for 1 of 1 images, first b\.png"):
        foreign.match(tmp_path, ["b.png"])


def test_what_changed_is_measured_on_the_files(clean, mesh, tmp_path, capsys):
    folder = changed(clean, tmp_path / "theirs", brighter(7))
    table = compare(clean, folder, tmp_path, mesh)
    line = table.line("theirs")
    pairs = [
        [np.asarray(Image.open(x).convert("RGB"), int) for x in (path, folder / path.name)]
        for path, folder in [(p, folder / p.parent.name) for p in clean.rglob("*.png")]
    ]
    assert (line.max_delta_255, line.epsilon_255, line.labels) == (7, None, "unknown")
    assert 6 < line.mean_abs_delta_255 <= 7
    deltas = [np.abs(theirs - ours).mean() for ours, theirs in pairs]
    assert min(deltas) <= line.mean_abs_delta_255 <= max(deltas)
    psnr = [fidelity.compare(*(x.astype(np.uint8) for x in pair)).psnr for pair in pairs]
    assert min(psnr) <= line.psnr_median <= max(psnr)
    assert "theirs: 32 files matched, largest change 7 of 255" in capsys.readouterr().out
    assert table.entry("theirs", "linear").results != table.entry("clean", "linear").results


def test_the_clean_files_themselves_are_a_row_with_the_clean_cells(clean, mesh, tmp_path):
    folder = shutil.copytree(clean, tmp_path / "copy")
    table = compare(clean, folder, tmp_path, mesh)
    assert table.line("theirs").psnr_median == float("inf")
    assert table.entry("theirs", "linear").results == table.entry("clean", "linear").results
    again = compare(clean, folder, tmp_path, mesh)
    assert again.lines == table.lines  # as read from foreign/theirs.json
    assert len(list((tmp_path / "work" / "cells").iterdir())) == 1


def test_files_of_protect_are_matched_by_their_manifest(clean, mesh, tmp_path):
    config = of_folder(clean, tmp_path, protections=("random",))
    fill(config, tmp_path / "made", mesh)
    out = tmp_path / "made" / "protections" / "random-seed0" / "files"
    lines = (out / "manifest.jsonl").read_text().replace('"output": "cat/', '"output": "moved/')
    (out / "manifest.jsonl").write_text(lines)
    (out / "images" / "cat").rename(out / "images" / "moved")
    table = compare(clean, out, tmp_path, mesh, "random")
    assert table.line("theirs").max_delta_255 == 16
    assert table.entry("theirs", "linear").results == table.entry("random", "linear").results


def test_a_folder_of_jpeg_files_is_no_other_picture(clean, mesh, tmp_path):
    folder = changed(
        clean, tmp_path / "theirs", lambda image: image,
        lambda name: name.replace(".png", ".jpg"), quality=10,
    )  # fmt: skip
    line = compare(clean, folder, tmp_path, mesh).line("theirs")
    assert 5 < line.max_delta_255 < 255
    assert line.mean_abs_delta_255 < 40


def test_images_whose_file_is_missing_are_left_out_of_every_row(clean, mesh, tmp_path, capsys):
    folder = changed(clean, tmp_path / "theirs", brighter(3))
    config = of_folder(clean, tmp_path, protections=("clean",))
    whole = fill(config, tmp_path / "all", mesh)
    first = whole.ground.splits.train.names[0]
    (folder / first).unlink()
    table = compare(clean, folder, tmp_path, mesh)
    assert "1 images lack a protected file and are left out of every row" in capsys.readouterr().out
    assert table.train_count == whole.table.train_count - 1
    assert {line.files for line in table.lines} == {31}


def drop_two(folder):
    for path in sorted(folder.rglob("*.png"))[::12]:
        path.unlink()


def narrower(folder):
    for path in folder.rglob("*.png"):
        Image.open(path).crop((0, 0, 39, 60)).save(path)


def truncate(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:100])


def shuffle(folder):
    """Gives every file the picture of another."""
    paths = sorted(folder.rglob("*.png"))
    data = [path.read_bytes() for path in paths]
    for path, other in zip(paths, np.roll(np.array(data, object), 3), strict=True):
        path.write_bytes(other)


def nothing(folder):
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (nothing, r"theirs has no file for 32 of 32 images, first .* mirrors the clean one"),
        (drop_two, r"theirs has no file for \d of 32 images, first"),
        (narrower, "32 of 32 files cannot be compared.* it has 39 x 60 pixels, .* 40 x 60"),
        (truncate, "32 of 32 files cannot be compared, first"),
        (shuffle, r"shows other pictures than .*photos: the files differ by \d+ of 255 levels"),
        (shutil.rmtree, "is not a folder: give the folder of the protected files"),
    ],
)
def test_a_wrong_folder_is_found_before_training(
    damage, message, clean, mesh, tmp_path, monkeypatch
):
    folder, counted = changed(clean, tmp_path / "theirs", brighter(3)), Counted(monkeypatch)
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        compare(clean, folder, tmp_path, mesh)
    assert "\n" not in str(caught.value)
    assert counted.labels == []


def test_changed_files_are_measured_and_trained_on_again(clean, mesh, tmp_path, monkeypatch):
    folder = changed(clean, tmp_path / "theirs", brighter(3))
    compare(clean, folder, tmp_path, mesh)
    counted = Counted(monkeypatch)
    changed(clean, folder, lambda image: image.filter(ImageFilter.BoxBlur(1)))
    line = compare(clean, folder, tmp_path, mesh).line("theirs")
    assert line.max_delta_255 != 3
    assert counted.labels == ["theirs → linear, seeds 0/0"]


def test_changed_clean_pictures_are_compared_again(clean, mesh, tmp_path):
    photos_ = shutil.copytree(clean, tmp_path / "photos")
    folder = changed(clean, tmp_path / "theirs", brighter(3))
    config = of_folder(photos_, tmp_path, protections=(row(folder),))
    fill(config, tmp_path / "work", mesh)
    changed(clean, photos_, brighter(5))
    table = fill(config, tmp_path / "work", mesh).table
    assert table.line("theirs").max_delta_255 == 2


def test_crops_are_compared_with_the_clean_crops(clean, mesh, tmp_path):
    config = of_folder(clean, tmp_path, protections=("random",), files__geometry="crop")
    fill(config, tmp_path / "made", mesh)
    out = tmp_path / "made" / "protections" / "random-seed0" / "files" / "images"
    table = compare(clean, out, tmp_path, mesh, files__geometry="crop")
    assert table.line("theirs").max_delta_255 == 16
    other = shutil.copytree(clean, tmp_path / "whole")
    with pytest.raises(UserError, match="it has 40 x 60 pixels, the clean picture 32 x 32"):
        compare(clean, other, tmp_path / "again", mesh, files__geometry="crop")


def test_a_path_with_any_characters_and_no_label_is_a_row(clean, mesh, tmp_path):
    folder = tmp_path / ("long " * 30) / "100 % C:x" / ("deep-" * 20)
    changed(clean, folder, brighter(3))
    given = str(folder).replace("%", "%25").replace(":", "%3A")
    config = of_folder(clean, tmp_path, protections=("clean", f"folder={given}"))
    table = fill(config, tmp_path / "work", mesh).table
    assert table.entry(f"folder={given}", "linear") is not None
