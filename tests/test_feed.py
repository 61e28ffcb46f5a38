import chex
import jax
import numpy as np
import pytest

from ucjax import parallel
from ucjax.data import augment
from ucjax.data.feed import Feed
from ucjax.data.images import ImageSet

SHORT = 10


@pytest.fixture(scope="module")
def images():
    """Images of 10 x 10 to 10 x 17, upright and wide."""
    rng = np.random.default_rng(0)
    n = 23
    longs = rng.integers(SHORT, SHORT + 8, n)
    longs[0] = SHORT
    return ImageSet(
        rows=rng.integers(0, 256, (longs.sum(), SHORT, 3), dtype=np.uint8),
        starts=np.concatenate([[0], np.cumsum(longs)]),
        wide=rng.random(n) < 0.5,
        labels=np.zeros(n, np.int32),
        names=tuple(map(str, range(n))),
        class_names=("a",),
    )


def positions(image, crop):
    """Where `crop` occurs in `image`."""
    s = len(crop)
    return [
        (y, x)
        for y in range(image.shape[0] - s + 1)
        for x in range(image.shape[1] - s + 1)
        if (image[y : y + s, x : x + s] == crop).all()
    ]


@pytest.mark.parametrize("budget", [0, 2**30], ids=["streamed", "resident"])
@pytest.mark.parametrize("size", [7, SHORT])
def test_random_crops_are_parts_of_their_images_at_every_position(images, mesh, size, budget):
    feed = Feed(images, size, mesh=mesh, budget_bytes=budget)
    assert feed.resident == (budget > 0)
    index = int(np.argmax(images.wide))
    seen = set()
    for step in range(30):
        for crop in parallel.to_host(feed.random_crops(np.full(8, index), 0, step)):
            (place,) = positions(images.image(index), crop)
            seen.add(place)
    height, width = images.image(index).shape[:2]
    assert seen == {
        (y, x) for y in range(height - size + 1) for x in range(width - size + 1)
    }  # fmt: skip


@pytest.mark.parametrize("budget", [0, 2**30], ids=["streamed", "resident"])
@pytest.mark.parametrize("size", [6, 7])
def test_centre_crops_are_those_of_the_image_set(images, mesh, size, budget):
    feed = Feed(images, size, mesh=mesh, budget_bytes=budget)
    indices, mask = parallel.pad(np.arange(len(images)), 8)
    crops = parallel.to_host(feed.center_crops(indices))[mask > 0]
    np.testing.assert_array_equal(crops, images.center_crops(size))


def test_bytes_do_not_depend_on_residence_devices_or_earlier_calls(images, mesh, one_device):
    plan = [(np.random.default_rng(step).integers(0, 23, 8), 5, step) for step in range(4)]
    results = []
    for devices in (mesh, one_device):
        for budget in (0, 2**30):
            feed = Feed(images, 7, mesh=devices, budget_bytes=budget)
            results.append([parallel.to_host(crops) for crops in feed.prefetch(plan)])
    alone = Feed(images, 7, mesh=mesh).random_crops(*plan[2])
    for result in results:
        chex.assert_trees_all_equal(result, results[0])
    np.testing.assert_array_equal(parallel.to_host(alone), results[0][2])
    assert (results[0][0] != results[0][1]).any()


def test_resident_crops_are_compiled_once(images, mesh):
    feed = Feed(images, 7, mesh=mesh, budget_bytes=2**30)
    for step in range(3):
        feed.random_crops(np.arange(8) + step, 0, step)
    assert feed._cut._cache_size() == 1


def test_a_failure_while_loading_ahead_reaches_the_caller(images, mesh):
    feed = Feed(images, 7, mesh=mesh)
    with pytest.raises(IndexError):
        list(feed.prefetch([(np.full(4, 99), 0, 0)]))


def test_a_crop_larger_than_the_images_is_refused(images, mesh):
    with pytest.raises(ValueError, match=r"size \(=11\) .* \(10\)"):
        Feed(images, 11, mesh=mesh)


def test_flip_mirrors_the_chosen_images_only():
    images = np.random.default_rng(0).random((6, 4, 5, 3)).astype(np.float32)
    mask = np.array([True, False, True, True, False, False])
    flipped = np.asarray(augment.flip(images, mask))
    np.testing.assert_array_equal(flipped[mask], images[mask][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~mask], images[~mask])
    drawn = np.asarray(augment.flip_mask(jax.random.key(0), 4000))
    assert abs(drawn.mean() - 0.5) < 0.05


def test_pixels_become_floats_in_the_unit_interval():
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    values = np.asarray(augment.to_float(pixels))
    assert values.dtype == np.float32
    np.testing.assert_array_equal(np.rint(values * 255), pixels)
    assert values.min() == 0
    assert values.max() == 1
