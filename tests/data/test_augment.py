import jax
import numpy as np
import pytest

from ucjax.data import augment
from ucjax.runtime import parallel

DRAWS = 6000


def test_to_float_divides_every_value_by_255():
    values = np.arange(256, dtype=np.uint8)
    pixels = np.asarray(jax.jit(augment.to_float)(values))
    assert pixels.dtype == np.float32
    assert (pixels[0], pixels[255]) == (0, 1)
    # XLA multiplies by 1/255 instead, which may round the last bit otherwise.
    np.testing.assert_allclose(pixels, values / 255, rtol=1.2e-7)


def test_offsets_are_uniform_and_independent():
    lengths = np.full(DRAWS, 9, np.int32)
    offsets = augment.random_crop_offsets(jax.random.key(0), lengths, short_side=7, size=5)
    counts = np.zeros((5, 3))
    np.add.at(counts, tuple(map(np.asarray, offsets)), 1)  # fails on any offset out of range
    expected = DRAWS / counts.size
    # The 0.999 quantile of chi-squared with 14 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 36.1


def test_offsets_follow_each_image_s_own_length():
    lengths = np.resize(np.arange(5, 12, dtype=np.int32), DRAWS)
    rows, columns = augment.random_crop_offsets(jax.random.key(1), lengths, short_side=5, size=5)
    for length in range(5, 12):
        assert set(np.asarray(rows)[lengths == length]) == set(range(length - 5 + 1))
    assert not np.asarray(columns).any()


def test_an_offset_depends_on_the_position_not_on_the_batch_size():
    def draw(count):
        lengths = np.full(count, 100, np.int32)
        return augment.random_crop_offsets(jax.random.key(2), lengths, short_side=80, size=5)

    for short, long in zip(draw(6), draw(16), strict=True):
        np.testing.assert_array_equal(short, long[:6])


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (64, 3, 4, 3), np.uint8)


def test_flip_mirrors_where_the_mask_says(images):
    mask = np.arange(64) % 3 == 0
    flipped = np.asarray(augment.flip(images, mask))
    np.testing.assert_array_equal(flipped[mask], images[mask][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~mask], images[~mask])


def test_flip_mask_is_a_fair_coin():
    mask = np.asarray(augment.flip_mask(jax.random.key(0), DRAWS))
    assert mask.dtype == bool
    assert abs(mask.mean() - 0.5) < 3.3 * 0.5 / DRAWS**0.5


def test_random_flips_do_not_depend_on_the_devices(mesh, one_device, images):
    def flip(mesh, seed):
        program = parallel.pmap(
            lambda x: augment.random_flip(jax.random.key(seed), x),
            mesh=mesh, in_specs=parallel.SHARDED, out_specs=parallel.SHARDED,
        )  # fmt: skip
        return np.asarray(program(parallel.shard(images, mesh)))

    mask = augment.flip_mask(jax.random.key(0), 64)
    np.testing.assert_array_equal(flip(mesh, 0), augment.flip(images, mask))
    np.testing.assert_array_equal(flip(mesh, 0), flip(one_device, 0))
    assert (flip(mesh, 0) != flip(mesh, 1)).any()
