import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import RidgeClassifier

from ucjax.data import textures


def draw(items):
    return np.stack([np.asarray(item.open()) for item in items])


@pytest.fixture(scope="module")
def sets():
    """(images, labels) to learn from and to test on."""
    chosen = [textures.items(split, n, 48, 3) for split, n in (("train", 600), ("test", 300))]
    return [(draw(items), np.array([item.label for item in items])) for items in chosen]


def score(model, features, sets):
    (train, labels), (test, expected) = ((features(x), y) for x, y in sets)
    return model.fit(train, labels).score(test, expected)


def test_items_are_spread_evenly_and_named_after_their_family():
    items = textures.items("train", 23, 8, 0)
    names = [item.name for item in items]
    assert names == sorted(set(names))
    assert np.bincount([item.label for item in items]).tolist() == [3, 3, 3] + 7 * [2]
    assert all(item.name.split("/")[0] == textures.FAMILIES[item.label] for item in items)
    assert items[0].name == f"{textures.FAMILIES[0]}/0001.png"
    assert len({item.content_key for item in items}) == 23
    assert textures.items("train", 0, 8, 0) == []


@pytest.mark.parametrize("family", textures.FAMILIES)
def test_pictures_are_rgb_of_any_size_and_show_something(family):
    for size in (1, 17, 64):
        [item] = [x for x in textures.items("train", 10, size, 1) if x.name.startswith(family)]
        picture = item.open()
        assert (picture.mode, picture.size) == ("RGB", (size, size))
    # Hazy, but far from one plain colour.
    assert np.asarray(picture.convert("L"), float).std() > 8


def test_a_texture_depends_on_its_seed_split_family_and_number_alone():
    items = textures.items("train", 20, 16, 0)
    pictures = draw(items)
    np.testing.assert_array_equal(draw(items), pictures)
    more = {item.name: item for item in textures.items("train", 45, 16, 0)}
    np.testing.assert_array_equal(draw([more[item.name] for item in items]), pictures)
    assert [more[item.name].content_key for item in items] == [item.content_key for item in items]
    for others in (textures.items("test", 20, 16, 0), textures.items("train", 20, 16, 1)):
        assert (draw(others) != pictures).any((1, 2, 3)).all()
        assert {x.content_key for x in others}.isdisjoint(x.content_key for x in items)


def test_a_linear_model_on_pixels_fails(sets):
    assert score(RidgeClassifier(100), lambda x: x.reshape(len(x), -1) / 255, sets) < 0.35


def test_colors_tell_nothing(sets):
    forest = RandomForestClassifier(100, random_state=0)
    assert score(forest, lambda x: x.mean((1, 2)), sets) < 0.25


def test_structure_tells_the_families_apart(sets):
    """The frequencies in a picture and their directions, up to rotation, do without any colour."""

    def features(x):
        grey = x @ np.array([0.299, 0.587, 0.114])
        grey -= grey.mean((1, 2), keepdims=True)
        grey /= grey.std((1, 2), keepdims=True)
        side = grey.shape[1]
        power = np.abs(np.fft.fft2(grey * np.outer(np.hanning(side), np.hanning(side))))
        u, v = np.meshgrid(*2 * [np.fft.fftfreq(side, 1 / side)])
        radius, sector = np.hypot(u, v), (np.arctan2(v, u) % np.pi) // (np.pi / 12)
        band = (radius > 2) & (radius < 12)
        rings = [power[:, (radius >= r) & (radius < r + 1)].mean(1) for r in range(1, 18)]
        sectors = [power[:, band & (sector == s)].mean(1) for s in range(12)]
        levels = np.sort(np.abs(grey).reshape(len(x), -1), 1)[:, :: side**2 // 12]
        return np.concatenate([np.log(rings).T, np.sort(np.log(sectors).T, 1), levels], 1)

    assert score(RandomForestClassifier(100, random_state=0), features, sets) > 0.85
