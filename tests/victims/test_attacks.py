import numpy as np
import pytest
from PIL import Image

from ucjax import config, names
from ucjax.data.images import Item, build
from ucjax.errors import UserError
from ucjax.victims import defences, table
from ucjax.victims.contract import Treatment

COUNT, SIDE = 24, 64
WAVES = ((9, 14), (-12, 10))  # cycles down and across the short side


def wave(cycles, height, width):
    rows, columns = np.mgrid[:height, :width]
    turns = (cycles[0] * rows + cycles[1] * columns) / min(height, width)
    return np.cos(2 * np.pi * turns)[..., None]


def photos(amplitude=12.0, seed=0):
    """Pictures of power 1 / f^3, half of them tall, each with the wave of its group."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(COUNT):
        height = SIDE if i % 4 < 2 else SIDE + 16
        down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(SIDE)[None]
        slope = np.maximum(np.hypot(down, across), 1 / SIDE)[..., None] ** -1.5
        noise = np.fft.rfft2(rng.normal(size=(height, SIDE, 3)), axes=(0, 1)) * slope
        picture = np.fft.irfft2(noise, (height, SIDE), axes=(0, 1))
        picture = 128 + 30 * (picture - picture.mean()) / picture.std()
        cue = amplitude * wave(WAVES[i % 2], height, SIDE)
        found.append(np.rint(picture + cue).clip(0, 255).astype(np.uint8))
    return found


LABELS = (np.arange(COUNT) % 2).astype(np.int32)


def items(pictures, key="key"):
    return [
        Item(f"{i}.png", lambda p=p: Image.fromarray(p), int(LABELS[i]), f"{key}{i}")
        for i, p in enumerate(pictures)
    ]


def treated(pictures, *names_):
    opened = [item.open() for item in defences.defend_all(items(pictures), LABELS, names_)]
    return [np.asarray(picture) for picture in opened]


def amplitudes(pictures):
    """How much of its group's wave each picture has, in units of 1/255."""
    found = []
    for i, pixels in enumerate(pictures):
        cue = wave(WAVES[i % 2], *pixels.shape[:2])
        grey = pixels.astype(float).mean(2, keepdims=True)
        found.append(2 * ((grey - grey.mean()) * cue).mean())
    return np.array(found)


def test_notch_removes_the_groups_waves_and_little_else():
    before, without = photos(), photos(amplitude=0)
    assert amplitudes(before).min() > 10
    after = treated(before, "notch2")
    assert np.abs(amplitudes(after)).mean() < 0.1 * np.abs(amplitudes(before)).mean()
    left = [np.abs(a.astype(int) - b).mean() for a, b in zip(after, without, strict=True)]
    put_on = [np.abs(a.astype(int) - b).mean() for a, b in zip(before, without, strict=True)]
    assert np.mean(left) < 0.35 * np.mean(put_on)


def test_notch_leaves_pictures_without_peaks_nearly_alone():
    before = photos(amplitude=0)
    changes = [
        np.abs(a.astype(int) - b).mean()
        for a, b in zip(treated(before, "notch2"), before, strict=True)
    ]
    assert np.mean(changes) < 1.5


def gap(pictures):
    """How far the means of the two groups are apart, but for coarse content."""
    rows = np.stack(pictures).astype(float)
    apart = np.fft.fft2(rows[LABELS == 0].mean(0) - rows[LABELS == 1].mean(0), axes=(0, 1))
    cycles = np.fft.fftfreq(SIDE) * SIDE
    return np.linalg.norm(apart[np.hypot(cycles[:, None], cycles[None]) > 6])


def test_what_the_group_has_in_common_is_subtracted():
    """Afterwards all have the mean of all groups' waves, which tells nobody anything."""
    before = [p[:SIDE] for p in photos()]
    after = treated(before, "clustermean2")
    assert gap(after) < 0.1 * gap(before)
    np.testing.assert_allclose(amplitudes(after), 6, atol=1)


def test_orthogonal_projection_closes_the_linear_gap_of_the_classes():
    before = [p[:SIDE] for p in photos()]
    after = treated(before, f"ortho{SIDE}")

    assert gap(after) < 0.35 * gap(before)


def leaked(before, clean, count):
    kept = items(clean, "clean")
    found = defences.defend_all(items(before), LABELS, (f"pair_leak{count}",), kept)
    return [np.asarray(item.open()) for item in found]


def test_a_leaked_pair_gives_its_group_s_noise_away():
    """Gone to rounding, where neither picture was clipped, in tall pictures as in square ones."""
    before, without = photos(), photos(amplitude=0)
    square = [i for i in range(COUNT) if i % 4 < 2]
    after = leaked([before[i] for i in square], [without[i] for i in square], 4)
    for i, found in zip(square, after, strict=True):
        assert np.abs(before[i].astype(int) - without[i]).max() >= 11
        assert np.abs(found.astype(int) - without[i]).max() <= 2
    after = leaked(before, without, 6)
    left = np.abs(amplitudes(after) - amplitudes(without))[::4]
    assert left.max() < 1


def test_a_leaked_pair_leaves_other_pictures_alone():
    before, without = photos(), photos(amplitude=0)
    only = [p if i % 2 else q for i, (p, q) in enumerate(zip(before, without, strict=True))]
    for i, (found, given) in enumerate(zip(leaked(only, without, 8), only, strict=True)):
        if not i % 2:
            np.testing.assert_array_equal(found, given)
    # Each picture's own noise is known of the leaked ones alone.
    rng = np.random.default_rng(5)
    own = [(p + 12 * rng.choice((-1, 1), p.shape)).clip(0, 255).astype(np.uint8) for p in without]
    changed = [not np.array_equal(*pair) for pair in zip(leaked(own, without, 8), own, strict=True)]
    assert sum(changed) == 8
    # Nothing leaks of pictures that nobody protected.
    for found, given in zip(leaked(without, without, 8), without, strict=True):
        np.testing.assert_array_equal(found, given)


def test_a_leak_is_of_clean_pictures():
    with pytest.raises(UserError, match="pair_leak2 needs a clean picture of each"):
        treated(photos(), "pair_leak2")
    one, other = (
        defences.defend_all(items(photos()), LABELS, ("pair_leak2",), items(photos(), key))
        for key in ("a", "b")
    )
    assert one[0].content_key != other[0].content_key


@pytest.mark.parametrize("error", [UserError("a reason"), ZeroDivisionError("a reason")])
def test_what_fails_in_learning_is_not_blamed_on_a_picture(error, monkeypatch, tmp_path):
    def learn(pictures, labels, number):
        raise error

    monkeypatch.setitem(table.TREATMENTS, "fails", Treatment("", learn=learn))
    with pytest.raises(UserError, match="a reason") as caught:
        build(
            defences.defend_all(items(photos()), LABELS, ("fails",)), short_side=8,
            cache_dir=tmp_path, label="x",
        )  # fmt: skip
    assert caught.value is error or caught.value.__cause__ is error
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_cache_knows_the_whole_training_set():
    pictures = photos()
    ways = [
        defences.defend_all(items(pictures), LABELS, ("notch2",)),
        defences.defend_all(items(pictures, "other"), LABELS, ("notch2",)),
        defences.defend_all(items(pictures)[:-1], LABELS[:-1], ("notch2",)),
        defences.defend_all(items(pictures), LABELS, ("notch3",)),
        defences.defend_all(items(pictures), 1 - LABELS, ("ortho8",)),
        defences.defend_all(items(pictures), LABELS, ("ortho8",)),
        defences.defend_all(items(pictures), LABELS, ("grey", "notch2")),
        defences.defend_all(items(pictures), LABELS, ("notch2", "grey")),
    ]
    keys = [way[0].content_key for way in ways]
    assert len(set(keys)) == len(keys)
    changed = items(pictures)
    last = changed[-1]
    changed[-1] = Item(last.name, last.open, last.label, "new")
    assert defences.defend_all(changed, LABELS, ("notch2",))[0].content_key not in keys


def test_treatments_of_single_pictures_are_the_same_in_a_set():
    pictures = photos()[:2]
    one = [defences.defend(item, ("grey", "bits2")) for item in items(pictures)]
    both = defences.defend_all(items(pictures), LABELS[:2], ("grey", "bits2"))
    for a, b in zip(one, both, strict=True):
        assert a.content_key == b.content_key
        np.testing.assert_array_equal(np.asarray(a.open()), np.asarray(b.open()))


def test_pictures_of_the_test_set_are_not_changed_by_what_is_learned():
    with pytest.raises(UserError, match="notch5 is learned from the training pictures"):
        table.resolve(names.parse("resnet18+notch5:treat=both", "column"), config.paper())
    with pytest.raises(UserError, match="pair_leak5 is learned from the training pictures"):
        table.resolve(names.parse("resnet18+pair_leak5:treat=both", "column"), config.paper())
    with pytest.raises(UserError, match="learned from a training set"):
        defences.defend(items(photos())[0], ("notch5",))
