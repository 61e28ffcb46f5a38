"""A purifier is a command: what it is given, what is taken from it, and when it is asked."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ucjax import config, names
from ucjax.data.images import Item
from ucjax.errors import UserError
from ucjax.victims import purify, table

# Darkens, and writes down that it ran, into the folder named first.
DARKEN = """
import sys
from pathlib import Path
from PIL import Image

log, source, target = map(Path, sys.argv[1:])
with (log / "log").open("a") as file:
    file.write("ran\\n")
for path in source.iterdir():
    with Image.open(path) as image:
        assert image.mode == "RGB"
        image.point(lambda x: x // 2).save(target / f"{path.stem}.bmp")
"""
COPY = "cp -R {in}/. {out}"


def pictures(count=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (5 + i, 9, 3), np.uint8) for i in range(count)]


def items(found, key="key"):
    """Named as strangers name files, the first with alpha."""
    opened = [Image.fromarray(pixels) for pixels in found]
    opened[0].putalpha(255)
    return [
        Item(f"-rf {i}; $(x).png", image.copy, i, f"{key}{i}") for i, image in enumerate(opened)
    ]


def pixels(found):
    return [np.asarray(item.open()) for item in found]


def test_pictures_go_through_the_command_once(tmp_path, monkeypatch):
    script, log = tmp_path / "da rken.py", tmp_path / "logs" / "log"
    log.parent.mkdir()
    script.write_text(DARKEN)
    command = f"{sys.executable} '{script}' {tmp_path / 'logs'} {{in}} {{out}}"
    given, kept = pictures(), tmp_path / "kept"
    found = purify.purified(items(given), command, kept)
    for ours, item, before in zip(pixels(found), found, given, strict=True):
        np.testing.assert_array_equal(ours, before // 2)
        assert item.content_key != ""
    assert [(x.name, x.label) for x in found] == [(x.name, x.label) for x in items(given)]
    again = purify.purified(items(given), command, kept)
    assert [x.content_key for x in again] == [x.content_key for x in found]
    assert log.read_text().count("ran") == 1
    # Nothing but what was given back is kept, for this user alone.
    (place,) = (path for path in kept.iterdir() if path.is_dir())
    assert sorted(path.name for path in place.iterdir()) == ["out", "purified.json"]
    asked = []
    monkeypatch.setattr(purify, "_call", lambda arguments, log: asked.append(arguments))
    for changed, called in (
        (items(given, "other"), command), (items(given)[:2], command), (items(given), COPY),
    ):  # fmt: skip
        with pytest.raises(UserError, match="wrote 0 files"):
            purify.purified(changed, called, kept)
    script.write_text(DARKEN + "\n")
    with pytest.raises(UserError, match="wrote 0 files"):
        purify.purified(items(given), command, kept)
    assert len(asked) == 4


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cp {in}/000000.png {out}", r"given 3 pictures and wrote 1 files, 000001 is missing"),
        ("cp -R {in} {out}", r"wrote 1 files, 000000 is missing: it is to write each"),
        ("sh -c 'cp $0/* /dev/null $1' {in} {out}", "wrote 4 files, null is too much"),
        ("sh -c 'echo at last; exit 3' {in} {out}", r"sh ended with code 3 \(at last\): see .*log"),
        ("ln -s {in}/000000.png {in}/000001.png {in}/000002.png {out}", "3 of 3 .* is a link"),
    ],
)
def test_what_is_given_back_is_checked(command, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        purify.purified(items(pictures()), command, tmp_path / "kept")
    assert "\n" not in str(caught.value)
    assert not [x for x in (tmp_path / "kept").glob("[!.]*") if x.is_dir()]


def test_sizes_and_contents_are_checked(tmp_path):
    for name, changed in (("small", pictures()[0][:2]), ("text", None)):
        folder = tmp_path / name
        folder.mkdir()
        for i, before in enumerate(pictures()):
            Image.fromarray(before).save(folder / f"{i:06d}.png")
        if changed is None:
            (folder / "000001.png").write_bytes(b"no picture")
        else:
            Image.fromarray(changed).save(folder / "000001.png")
    for name, message in (
        ("small", "1 of 3 files of sh .* 000001.png has 9 x 2 pixels, was given 9 x 6"),
        ("text", "1 of 3 .* 000001.png is no picture"),
    ):
        command = f'sh -c \'cp "$0"/* "$1"\' {tmp_path / name} {{out}} {{in}}'
        with pytest.raises(UserError, match=message):
            purify.purified(items(pictures()), command, tmp_path / "kept")


def test_a_command_that_does_not_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(purify, "_HOURS", 0.3 / 3600)
    mark = tmp_path / "late"
    command = f"sh -c 'sleep 5; touch {mark}' {{in}} {{out}}"
    with pytest.raises(UserError, match=r"sh took longer than .* hours"):
        purify.purified(items(pictures()), command, tmp_path / "kept")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("cp {in}", r"has no \{out\}"),
        ("cp {out}", r"has no \{in\}"),
        ("no-such-program {in} {out}", "there is no program no-such-program"),
        ("cp '{in} {out}", "No closing quotation"),
    ],
)
def test_commands_are_checked_before_anything_is_loaded(command, message):
    with pytest.raises(UserError, match=message):
        table.resolve(names.parse(f"linear:purify={command}", "column"), config.paper())


def test_a_column_keeps_its_command():
    shared = config.paper()
    text = "linear+jpeg75:purify=cp -R {in}/. {out}%3A"
    victim = table.resolve(names.parse(text, "column"), shared)
    assert victim.purify == "cp -R {in}/. {out}:"
    assert str(victim.name) == text
    assert table.resolve(names.parse(str(victim.name), "column"), shared) == victim
    assert table.resolve(names.parse("linear", "column"), shared).purify == ""


def test_no_shell_sees_the_command(tmp_path):
    mark = tmp_path / "mark"
    command = f"cp -R {{in}}/. {{out}} ; touch {mark}"
    with pytest.raises(UserError, match="cp ended with code"):
        purify.purified(items(pictures()), command, tmp_path / "kept")
    assert not mark.exists()
    assert not Path("touch").exists()
