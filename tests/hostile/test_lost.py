"""Nothing of the owner's is lost, overwritten or taken for what it no longer is."""

import json
import os
import shutil
import signal
import time

import numpy as np
import odd_files
import pytest
import ready
from PIL import Image
from ready import content, one_line, protect, ucjax

from ucjax.data import images
from ucjax.files.manifest import items_of, read_manifest
from ucjax.runtime import disk

# What is not ours


@pytest.mark.parametrize(
    "name", ["images/cats/0.png", "manifest.jsonl", "summary.json", "protector/notes.txt"]
)
def test_a_folder_that_is_not_ours_is_refused(name, place, tmp_path):
    out = tmp_path / "mine"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_bytes(b"my own")
    before = content(out)
    code, text = ucjax("protect", place / "photos", out, "--protector", place / "protector")
    one_line(code, text, f"holds {name.split('/')[0]}, which ucjax did not write")
    assert content(out) == before


def test_a_page_of_the_owner_s_in_our_folder_is_refused_before_any_work(place):
    page = place / "out" / "report.html"
    page.write_text("my own")
    before = content(place)
    one_line(*protect(place), "report.html is there already, and no such page of ucjax")
    assert content(place) == before


def test_a_file_of_the_owner_s_in_our_folder_is_never_replaced(place):
    mine = place / "out" / "images" / "cats" / "new.png"
    mine.write_bytes(b"my own")
    odd_files.photo(50, 50, seed=50).save(place / "photos" / "cats" / "new.jpg")
    code, text = protect(place)
    assert (code, "new.png is there already, and not ours: move it away" in text) == (3, True)
    assert mine.read_bytes() == b"my own"
    mine.unlink()
    assert protect(place)[0] == 0
    assert len(read_manifest(place / "out")) == 7


@pytest.mark.parametrize("name", ["images", ".ucjax.json", "manifest.jsonl", ".unfinished"])
def test_nothing_is_written_through_links(name, place, tmp_path):
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "linked"
    elsewhere.mkdir()
    out.mkdir()
    (out / name).symlink_to(elsewhere / ("file" if "." in name[1:] else ""))
    code, text = ucjax("protect", place / "photos", out, "--protector", place / "protector")
    one_line(code, text, f"{name} is a link")
    assert content(elsewhere) == {}


def test_no_folder_below_images_is_followed_as_a_link(place, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (place / "out" / "images" / "birds").symlink_to(tmp_path / "elsewhere")
    (place / "photos" / "birds").mkdir()
    odd_files.photo(seed=60).save(place / "photos" / "birds" / "1.jpg")
    code, text = protect(place)
    assert (code, "is a link: nothing is written through it" in text) == (3, True)
    assert content(tmp_path / "elsewhere") == {}


# Contents, not clocks


def swap(path, other):
    """Gives a file other bytes of the same number, and its old times."""
    before, size = path.stat(), path.stat().st_size
    path.write_bytes(other.read_bytes()[:size].ljust(size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (size, before.st_mtime_ns)


def test_a_source_of_the_same_size_and_time_is_noticed(place, tmp_path):
    photo, other = place / "photos" / "cats" / "0.jpg", tmp_path / "other.jpg"
    odd_files.photo(60, 50, seed=77).save(other, quality=60)
    assert other.stat().st_size <= photo.stat().st_size
    before = content(place / "out")
    swap(photo, other)
    assert protect(place)[0] == 0
    after = content(place / "out")
    assert after["images/cats/0.png"] != before["images/cats/0.png"]
    assert ucjax("verify", place / "out", "--against", place / "photos")[0] == 0


def test_an_output_of_the_same_size_and_time_is_noticed(place):
    before = content(place / "out")
    outputs = place / "out" / "images" / "cats"
    swap(outputs / "0.png", outputs / "2.png")
    assert content(place / "out") != before
    assert protect(place)[0] == 0
    assert content(place / "out") == before


def test_a_replaced_photo_never_meets_an_old_cache(tmp_path):
    path, other = tmp_path / "a.bmp", tmp_path / "b.bmp"
    Image.new("RGB", (40, 40), "red").save(path)
    Image.new("RGB", (40, 40), "blue").save(other)
    options = {"short_side": 36, "cache_dir": tmp_path / "cache", "label": "x"}
    first = images.build([images.file_item(path, "a", 0)], **options)
    keys = [images.file_item(path, "a", 0).content_key]
    swap(path, other)
    keys.append(images.file_item(path, "a", 0).content_key)
    second = images.build([images.file_item(path, "a", 0)], **options)
    assert keys[0] != keys[1]
    assert (first.image(0)[0, 0, 0], second.image(0)[0, 0, 0]) == (255, 0)


def test_another_folder_of_photos_is_refused_and_a_moved_one_is_not(place, tmp_path):
    other = tmp_path / "other"
    for number in range(6):
        path = other / ("cats", "dogs")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(60, 50, seed=100 + number).save(path)
    before = content(place / "out")
    code, text = ucjax("protect", other, place / "out", "--protector", place / "protector")
    one_line(code, text, f"of 6 pictures of another folder, of which {other} holds 0")
    assert {
        k: v for k, v in content(place / "out").items() if k != ".unfinished/job.json"
    } == before
    (place / "photos").rename(tmp_path / "moved")
    moved = ("protect", tmp_path / "moved", place / "out", "--protector", place / "protector")
    assert ucjax(*moved)[0] == 0


@pytest.mark.parametrize("how", ["deleted", "damaged"])
def test_the_copy_of_a_photo_that_is_gone_leaves_and_is_named(how, place):
    photo = place / "photos" / "cats" / "0.jpg"
    if how == "deleted":
        photo.unlink()
    else:
        photo.write_bytes(photo.read_bytes()[:300])
    code, text = protect(place)
    named = "removed: the copy of cats/0.jpg" if how == "deleted" else "cats/0.jpg: damaged"
    assert (code, named in text) == (0 if how == "deleted" else 3, True)
    assert not (place / "out" / "images" / "cats" / "0.png").exists()
    assert len(read_manifest(place / "out")) == 5
    code, text = ucjax("verify", place / "out", "--against", place / "photos")
    assert code == 0, text


def test_a_copy_that_somebody_painted_on_is_not_deleted(place):
    (place / "photos" / "cats" / "0.jpg").unlink()
    copy = place / "out" / "images" / "cats" / "0.png"
    copy.write_bytes(b"painted on")
    code, text = protect(place)
    assert (code, "was changed since it was written: look at it" in text) == (3, True)
    assert copy.read_bytes() == b"painted on"


def test_copies_of_a_folder_that_cannot_be_searched_stay(place, monkeypatch):
    before, scandir = content(place / "out" / "images"), os.scandir

    def forbidden(folder="."):  # to root no mode forbids anything
        if str(folder) == str(place / "photos" / "cats"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", forbidden)
        code, text = protect(place)
    assert (code, "cats: Permission denied" in text) == (3, True)
    assert content(place / "out" / "images") == before


def test_a_class_folder_added_later_changes_no_label(place, tmp_path):
    before = {r["name"]: r["class"] for r in read_manifest(place / "out")}
    (place / "photos" / "aardvarks").mkdir()
    odd_files.photo(seed=70).save(place / "photos" / "aardvarks" / "1.jpg")
    assert protect(place)[0] == 0
    after = {r["name"]: r["class"] for r in read_manifest(place / "out")}
    assert before.items() <= after.items()
    assert after["aardvarks/1.jpg"] == "aardvarks"
    classes = ["aardvarks", "cats", "dogs"]
    for item in items_of(place / "out"):
        assert classes[item.label] == item.name.split("/")[0]
    destination = tmp_path / "export"
    assert ucjax("export", place / "out", "--to", "imagefolder", destination)[0] == 0
    found = {p.relative_to(destination).as_posix() for p in destination.rglob("*.png")}
    assert found == {r["output"] for r in read_manifest(place / "out")}
    assert ucjax("verify", place / "out", "--against", place / "photos")[0] == 0


# Written whole, by one


def test_a_second_run_says_who_writes(place):
    with disk.held(place / "out"):
        code, text = protect(place)
        one_line(code, text, f"is being written by process {os.getpid()} since 20")
    assert protect(place)[0] == 0
    assert not (place / "out" / disk.LOCK).exists()


def test_a_dead_process_holds_nothing(place):
    process = ready.start(
        "protect", place / "photos", place / "out2", "--protector", place / "protector"
    )
    while not (place / "out2" / disk.LOCK).exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    command = ("protect", place / "photos", place / "out2", "--protector", place / "protector")
    assert ucjax(*command)[0] == 0
    found, expected = content(place / "out2"), content(place / "out")
    assert found.pop("report.html") != expected.pop("report.html")  # each names its folder
    assert found == expected


def test_names_are_synced_before_they_are_relied_upon(tmp_path, monkeypatch):
    calls = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}

    def traced(name):
        def call(*arguments):
            folder = name == "fsync" and os.path.isdir(f"/proc/self/fd/{arguments[0]}")
            calls.append("fsync folder" if folder else name)
            return real[name](*arguments)

        return call

    for name in real:
        monkeypatch.setattr(os, name, traced(name))
    disk.write_bytes(tmp_path / "x", b"data")
    assert calls == ["fsync", "replace", "fsync folder"]


@pytest.mark.parametrize("synced", [6, 7, 8])  # up to a copy's content, its name, the next one
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(synced, place, monkeypatch):
    whole = content(place / "out")
    shutil.rmtree(place / "out")
    real, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > synced:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        code, text = protect(place, "--threads", 1)
    one_line(code, text, "No space left on device; see to it, then run again to go on", 1)
    assert protect(place)[0] == 0
    assert content(place / "out") == whole


def test_a_place_that_cannot_be_written_to_is_one_line(place):
    command = ("protect", place / "photos", "/proc/nowhere", "--protector", place / "protector")
    one_line(*ucjax(*command), "cannot write /proc/nowhere", 1)


STATES = [".ucjax.json", "manifest.jsonl", "summary.json"]


@pytest.mark.parametrize("share", [0, 0.5])
@pytest.mark.parametrize("name", STATES)
def test_a_half_written_state_is_made_again(name, share, place):
    whole, path = content(place / "out"), place / "out" / name
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    code, text = protect(place)
    assert code == 0, text
    assert content(place / "out") == whole


@pytest.mark.parametrize("name", ["job.json", "records.jsonl"])
@pytest.mark.parametrize("data", [b"", b'{"geo', b"[" * 100_000, b"\xff\xfe\0", b"3\n"])
def test_a_half_written_note_of_a_killed_run_is_made_again(name, data, place):
    whole = content(place / "out")
    for finished in ("manifest.jsonl", "summary.json"):
        (place / "out" / finished).unlink()
    (place / "out" / "images" / "cats" / "0.png").unlink()
    (place / "out" / ".unfinished").mkdir()
    (place / "out" / ".unfinished" / name).write_bytes(data)
    assert protect(place)[0] == 0
    assert content(place / "out") == whole


# Settings of the run on disk


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learnt")
    ready.photos(folder / "photos", 8)
    size = ["--config.data.short_side=36", "--config.data.crop=32"]
    small = [*size, "--config.noise.batch_size=8", "--protection=uc"]
    command = ("protect", folder / "photos", folder / "out", *small)
    code, text = ucjax(*command, "--config.noise.epochs=1", "--clusters", 3)
    assert code == 0, text
    return command


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--config.noise.epochs=1", "--clusters", 4], "clusters.k = 3, now it is 4"),
        (["--config.noise.epochs=2", "--clusters", 3], "noise.epochs = 1, now it is 2"),
        (["--config.noise.epochs=1", "--clusters", 3, "--eps", 8], "epsilon_255 = 16, now it is 8"),
        (["--config.noise.epochs=1", "--clusters", 3, "--seed", 1], "noise_seeds = [0], now it"),
        (
            ["--config.noise.epochs=1", "--clusters", 3, "--config.noise.learning_rate=0.1"],
            "noise.learning_rate = 0.3, now it is 0.1",
        ),
    ],
)
def test_settings_that_differ_from_the_run_on_disk_are_named(settings, message, learnt):
    code, text = ucjax(*learnt, *settings)
    one_line(code, text, message)
    assert "give the same settings as then, or use another OUT" in text


def test_equal_settings_go_on(learnt):
    assert ucjax(*learnt, "--config.noise.epochs=1", "--clusters", 3)[0] == 0
    summary = json.loads((learnt[2] / "summary.json").read_text())
    assert summary["count"] == 8
    assert np.isfinite(summary["psnr_min"])
