"""A cell is known by what its victim sees and is, and trusted only as far as it makes sense."""

import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest

from ucjax import config, names
from ucjax.comparison import cells, ground
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.victims import table
from ucjax.victims.training import EpochRecord, VictimResult

RESULT = VictimResult(
    0.5, 0.75, (EpochRecord(2.0, 0.3, 0.75), EpochRecord(1.5, 0.9, 0.5)), (0.25, None)
)
OTHERS = {
    "model": "vit_tiny", "recipes": ("cutout",), "width": 5, "epochs": 2, "batch_size": 16,
    "optimizer": "adamw", "learning_rate": 0.2, "final_learning_rate": 0.01, "warmup_epochs": 1,
    "momentum": 0.8, "weight_decay": 0.1, "short_side": 40, "crop": 30, "mean": (0.4, 0.5, 0.5),
    "std": (0.4, 0.5, 0.5), "flip": False, "clip_norm": 1.0,
    "pretrain_epochs": 3,
}  # fmt: skip

NEW = {"clip_norm", "pretrain_epochs"}


def image_set(seed=0, labels=(0, 1, 1), names=("a", "b", "c"), classes=("x", "y")):
    rows = np.random.default_rng(seed).integers(0, 256, (12, 4, 3), np.uint8)
    return ImageSet(
        rows, np.array([0, 4, 8, 12]), np.zeros(3, bool), np.array(labels, np.int32), names, classes
    )


def spec(**changes):
    found = table.resolve(names.parse("resnet18", "column"), config.paper()).spec
    return dataclasses.replace(found, **changes)


def key(train=None, test=None, spec_=None, seed=0):
    sets = (train or image_set(), test or image_set(1))
    return cells.key(*(ground.fingerprint(x).hexdigest() for x in sets), spec_ or spec(), seed)


def with_pixel(images, index, change=1):
    rows = images.rows.copy()
    rows[index] ^= change
    return dataclasses.replace(images, rows=rows)


def test_whatever_the_victim_sees_or_is_changes_the_key():
    turned = dataclasses.replace(image_set(), wide=np.array([True, False, False]))
    longer = dataclasses.replace(image_set(), starts=np.array([0, 5, 8, 12]))
    found = {
        "plain": key(),
        "a pixel": key(with_pixel(image_set(), (7, 2, 1))),
        "a label": key(image_set(labels=(0, 1, 0))),
        "the classes": key(image_set(classes=("x", "z"))),
        "an orientation": key(turned),
        "a shape": key(longer),
        "a test pixel": key(test=with_pixel(image_set(1), (0, 0, 0))),
        "a test label": key(test=image_set(1, labels=(1, 1, 1))),
        "swapped": key(image_set(1), image_set()),
        "a seed": key(seed=1),
        **{field: key(spec_=spec(**{field: value})) for field, value in OTHERS.items()},
    }
    assert OTHERS.keys() == {field.name for field in dataclasses.fields(spec())}
    assert len(set(found.values())) == len(found)


def test_cells_from_before_a_setting_was_added_are_still_found():
    old = {k: v for k, v in dataclasses.asdict(spec()).items() if k in OTHERS.keys() - NEW}
    parts = [cells.FORMAT, "train", "test", old, 3]
    expected = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    assert cells.key("train", "test", spec(), 3) == expected


def test_the_key_is_the_same_for_the_same_content_under_other_names():
    assert key() == key(image_set(names=("train/1", "2", "3")))
    assert key() == key(spec_=spec(recipes=()))
    assert len(key()) == 64


def test_a_cell_is_read_as_it_was_saved(tmp_path):
    cells.save(tmp_path, key(), RESULT, spec(), {"row": "uc", "seed": 0})
    assert cells.find(key(), tmp_path, ()) == RESULT
    assert cells.find(key(seed=1), tmp_path, ()) is None
    saved = json.loads(cells.path_of(tmp_path, key()).read_text())
    assert (saved["row"], saved["victim"]["model"]) == ("uc", "resnet18")
    assert saved["versions"].keys() >= {"jax", "numpy"}


def test_a_cell_of_another_run_is_copied(tmp_path):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    cells.save(theirs, key(), RESULT, spec(), {"row": "uc"})
    assert cells.find(key(), mine, (tmp_path / "none", theirs)) == RESULT
    copy, original = (cells.path_of(x, key()).read_bytes() for x in (mine, theirs))
    assert copy == original


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("key"), "KeyError"),
        (lambda c: c.update(key="0" * 64), "another cell"),
        (lambda c: c.update(key=c["key"][:20] + "0" * 44), "another cell"),
        (lambda c: c.pop("result"), "KeyError"),
        (lambda c: c["result"].pop("classes"), "KeyError"),
        (lambda c: c["result"].update(last=1.2, peak=1.3), "1.2 is no accuracy"),
        (lambda c: c["result"].update(last=-0.1), "-0.1 is no accuracy"),
        (lambda c: c["result"].update(last=math.nan), "nan is no accuracy"),
        (lambda c: c["result"].update(last="high"), "ValueError"),
        (lambda c: c["result"].update(peak=0.3), "contradict"),
        (lambda c: c["result"].update(peak=0.9), "contradict"),
        (lambda c: c["result"].update(last=0.6), "contradict"),
        (lambda c: c["result"].update(classes=[2.0]), "2.0 is no accuracy"),
        (lambda c: c["result"].update(curve=[]), "empty"),
        (lambda c: c["result"]["curve"].append([1.0]), "TypeError"),
        (lambda c: c["result"]["curve"][0].__setitem__(0, math.nan), "not finite"),
        (lambda c: c["result"]["curve"][0].__setitem__(1, 7.0), "7.0 is no accuracy"),
        (lambda c: c["result"]["curve"][0].__setitem__(2, -3.0), "-3.0 is no accuracy"),
        (lambda c: c.update(result=[1, 2]), "TypeError"),
    ],
)
def test_a_damaged_or_forged_cell_is_one_line(change, words, tmp_path):
    cells.save(tmp_path, key(), RESULT, spec(), {})
    path = cells.path_of(tmp_path, key())
    cell = json.loads(path.read_text())
    change(cell)
    path.write_text(json.dumps(cell))
    with pytest.raises(
        UserError, match=f"is no cell of this victim .*{words}.*delete it"
    ) as caught:
        cells.find(key(), tmp_path, ())
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is no cell of this victim"):
        cells.find(key(), tmp_path / "mine", (tmp_path,))
    assert not cells.path_of(tmp_path / "mine", key()).exists()


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"[]", b"7", b""])
def test_what_is_no_cell_at_all_is_one_line(content, tmp_path):
    path = cells.path_of(tmp_path, key())
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(UserError, match="delete it") as caught:
        cells.find(key(), tmp_path, ())
    assert "\n" not in str(caught.value)


def test_results_and_their_json_are_inverse():
    assert cells.parse_result(json.loads(json.dumps(cells.result_json(RESULT)))) == RESULT
