import numpy as np
import pytest
from PIL import Image

from ucjax.data.decode import resize
from ucjax.protections.placement import add, enlarged, placed


def enlarge(noise, resized, shape):
    return enlarged(noise, resized, shape)(slice(0, shape[0]))


def change(noise, norm):
    grey = np.full((200, 300, 3), 128, np.uint8)
    return placed(noise, (64, 96), (200, 300), 16, norm)(0, grey).astype(int) - 128


def bounded_noise(rng, shape, eps):
    """Uniform noise, half of it exactly at the bounds."""
    inside = rng.uniform(-eps, eps, shape).astype(np.float32)
    bounds = rng.choice(np.array([-eps, eps], np.float32), size=shape)
    return np.where(rng.random(shape) < 0.5, inside, bounds)


@pytest.mark.parametrize("epsilon_255", [1, 4, 8, 16, 37, 128])
def test_rounding_holds_the_budget_where_truncation_breaks_it(epsilon_255):
    rng = np.random.default_rng(epsilon_255)
    pixels = np.arange(256, dtype=np.uint8).repeat(300).reshape(160, 160, 3)
    noise = bounded_noise(rng, pixels.shape, epsilon_255 / 255)
    delta = add(pixels, noise).astype(int) - pixels
    assert np.abs(delta).max() == epsilon_255
    ideal = np.clip(pixels + 255.0 * noise, 0, 255) - pixels
    assert np.abs(delta - ideal).max() <= 0.5 + 1e-4
    truncated = (255 * np.clip(pixels / 255 + noise, 0, 1)).astype(np.uint8)
    assert np.abs(truncated.astype(int) - pixels).max() > epsilon_255


def test_no_noise_changes_nothing():
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(add(pixels, np.zeros((16, 16, 3), np.float32)), pixels)


def waves(size):
    """Smooth noise of ±1 without symmetries, so that shifts and flips show."""
    y, x = np.mgrid[:size, :size] / size
    planes = [np.sin(9 * x + 5 * y + c) * np.cos(4 * x - 11 * y * y + c) for c in range(3)]
    return np.stack(planes, axis=-1).astype(np.float32)


def seen(noise, short_side, size):
    """The centre crop of the resized noise, channel by channel in floating point."""
    planes = [np.asarray(resize(Image.fromarray(p), short_side)) for p in np.moveaxis(noise, 2, 0)]
    image = np.stack(planes, axis=-1)
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size], image.shape[:2]


@pytest.mark.parametrize(
    "shape", [(64, 64), (97, 301), (301, 97), (130, 131), (53, 71), (40, 40), (33, 200)]
)
def test_noise_reappears_in_the_center_crop_of_the_resized_image(shape):
    short_side, size = 64, 56
    noise = waves(size)
    _, resized = seen(np.zeros((*shape, 3), np.float32), short_side, size)
    found, _ = seen(enlarge(noise, resized, shape), short_side, size)
    error = np.abs(found - noise).mean()
    assert error < 0.04
    # The next pixel is worse in every direction: nothing is shifted.
    inner = np.s_[1:-1, 1:-1]
    for axis in (0, 1):
        for step in (-1, 1):
            shifted = np.roll(noise, step, axis)
            assert np.abs(found - shifted)[inner].mean() > 1.3 * np.abs(found - noise)[inner].mean()


def test_noise_continues_by_reflection_around_the_square():
    noise = waves(4)
    found = enlarge(noise, (6, 11), (6, 11))
    np.testing.assert_allclose(found[1:5, 4:8], noise, atol=1e-6)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    np.testing.assert_allclose(found[:, :4], found[:, 7:3:-1], atol=1e-6)
    np.testing.assert_allclose(found[:, 8:], found[:, 7:4:-1], atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "resized"),
    [((1, 1), (64, 64)), ((1, 20), (64, 1280)), ((20, 1), (1280, 64)), ((2, 3), (64, 96))],
)
def test_tiny_images_get_noise_of_their_size(shape, resized):
    found = enlarge(waves(56), resized, shape)
    assert found.shape == (*shape, 3)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("shape", [(301, 97), (130, 131), (65, 40)])
def test_bands_are_parts_of_the_whole(shape):
    resized = (64, 64)
    bands = [slice(0, 1), slice(1, 50), slice(50, shape[0])]
    parts = np.concatenate([*map(enlarged(waves(56), resized, shape), bands)])
    np.testing.assert_allclose(parts, enlarge(waves(56), resized, shape), atol=1e-4)


def test_overshoot_is_taken_back():
    rng = np.random.default_rng(0)
    eps = 16 / 255
    signs = rng.choice(np.array([-eps, eps], np.float32), size=(56, 56, 3))
    assert np.abs(enlarge(signs, (64, 96), (200, 300))).max() > eps
    delta = change(signs, "linf")
    assert np.abs(delta).max() == 16


@pytest.mark.parametrize(("loudness", "expected"), [(3, 16), (0.5, 8), (0, 0)])
def test_l2_noise_is_scaled_only_if_it_must(loudness, expected):
    noise = waves(56)
    noise *= loudness * 16 / 255 / np.sqrt(np.mean(np.square(noise)))
    delta = change(noise, "rms")
    # The reflected margins are as loud as the square, to a few percent.
    assert np.sqrt(np.mean(np.square(delta))) == pytest.approx(expected, rel=0.06, abs=0)
    if loudness == 3:
        assert np.sqrt(np.mean(np.square(delta))) == pytest.approx(16, rel=0.01)
