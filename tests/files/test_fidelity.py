import math

import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ucjax.files import color_difference, fidelity
from ucjax.files.color_difference import ciede2000


def pair(shape, amount, seed=0):
    """A smooth picture and a noisy copy, both clipped to 8 bits."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    waves = np.stack([np.sin(x / 9 + c) + np.cos(y / 13 - c) for c in range(3)], axis=-1)
    clean = np.clip(128 + 80 * waves, 0, 255).astype(np.uint8)
    noise = amount * rng.choice([-1, 1], size=clean.shape)
    return clean, np.clip(clean + noise, 0, 255).astype(np.uint8)


def ssim_of_scikit_image(clean, protected):
    return structural_similarity(
        clean,
        protected,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        channel_axis=-1,
        data_range=255,
    )


@pytest.mark.parametrize(
    ("shape", "amount"),
    [((64, 64), 16), ((11, 11), 8), ((12, 70), 1), ((107, 300), 16), ((333, 58), 3)],
)
def test_agrees_with_scikit_image(shape, amount):
    clean, protected = pair(shape, amount)
    measured = fidelity.compare(clean, protected)
    delta = protected.astype(int) - clean
    expected = ssim_of_scikit_image(clean, protected)
    assert measured.ssim == pytest.approx(expected, abs=1e-4)
    assert measured.psnr == pytest.approx(peak_signal_noise_ratio(clean, protected), abs=1e-9)
    assert measured.max_delta_255 == np.abs(delta).max()
    assert measured.mean_abs_delta_255 == pytest.approx(np.abs(delta).mean())
    assert measured.rms_delta_255 == pytest.approx(np.sqrt(np.mean(delta**2)))


def test_extremes():
    black, white = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 255, np.uint8)
    seen = (0, 100, 100)  # black and white differ by 100 in lightness, in no hue
    expected = (255, 255, 255, 0, 0, *seen, *seen)
    assert fidelity.compare(black, white) == pytest.approx(expected, abs=2e-3)
    assert fidelity.compare(white, white) == (0, 0, 0, math.inf, 1, 1, 0, 0, 1, 0, 0)
    assert fidelity.ssim(white, white) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (10, 64)])
def test_images_smaller_than_the_window(shape):
    clean, protected = pair(shape, 16)
    assert fidelity.ssim(clean, clean) == pytest.approx(1, abs=1e-6)
    assert 0 < fidelity.ssim(clean, protected) < 1


def test_a_part_of_a_large_picture_stands_for_the_whole():
    clean, protected = pair((1300, 2100), 16)
    # Flat above, rough below: a part that is not spread evenly would miss one of them.
    clean[:650], protected[:650] = 128, 128
    expected = ssim_of_scikit_image(clean, protected)
    measured = fidelity.compare(clean, protected)
    assert measured.ssim == pytest.approx(expected, abs=0.01)
    assert measured.ssim_luma == pytest.approx(ssim_of_luminance(clean, protected), abs=0.01)
    differences = deltaE_ciede2000(rgb2lab(clean), rgb2lab(protected))
    assert measured.delta_e_mean == pytest.approx(differences.mean(), rel=0.01)
    assert measured.delta_e_p95 == pytest.approx(np.percentile(differences, 95), rel=0.02)


def ssim_of_luminance(clean, protected):
    luminance = [picture @ np.array([0.299, 0.587, 0.114]) for picture in (clean, protected)]
    return structural_similarity(
        *luminance, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )


@pytest.mark.parametrize(("shape", "amount"), [((64, 70), 16), ((90, 91), 4)])
def test_what_is_seen_agrees_with_scikit_image(shape, amount):
    clean, protected = pair(shape, amount)
    measured = fidelity.compare(clean, protected)
    differences = deltaE_ciede2000(rgb2lab(clean), rgb2lab(protected))
    assert measured.ssim_luma == pytest.approx(ssim_of_luminance(clean, protected), abs=1e-4)
    assert measured.delta_e_mean == pytest.approx(differences.mean(), abs=1e-3)
    assert measured.delta_e_p95 == pytest.approx(np.percentile(differences, 95), abs=1e-2)
    screen = (measured.ssim_luma_screen, measured.delta_e_mean_screen, measured.delta_e_p95_screen)
    assert screen == (measured.ssim_luma, measured.delta_e_mean, measured.delta_e_p95)


def test_a_change_without_luminance_is_seen_as_color_only():
    clean, _ = pair((80, 80), 0)
    clean = clean // 2 + 64
    rows = (np.arange(80) // 2 % 2 * 2 - 1)[:, None, None]
    protected = (clean + rows * np.array([16, -10, 9])).astype(np.uint8)  # luminance: -0.06
    measured = fidelity.compare(clean, protected)
    assert measured.ssim < 0.9
    assert measured.ssim_luma > 0.999
    assert measured.delta_e_mean > 5


def test_on_a_screen_fine_patterns_of_large_pictures_fade():
    clean, _ = pair((2200, 2500), 0)
    clean = clean // 2 + 64
    rows = (np.arange(2200) // 2 % 2 * 2 - 1)[:, None, None]
    protected = (clean + rows * 16).astype(np.uint8)
    measured = fidelity.compare(clean, protected)
    reduced = [
        np.asarray(Image.fromarray(picture).resize((1227, 1080), Image.Resampling.BILINEAR))
        for picture in (clean, protected)
    ]
    differences = deltaE_ciede2000(*(rgb2lab(picture) for picture in reduced))
    assert measured.ssim_luma_screen > measured.ssim_luma + 0.2
    assert measured.ssim_luma_screen == pytest.approx(ssim_of_luminance(*reduced), abs=0.02)
    assert measured.delta_e_mean_screen == pytest.approx(differences.mean(), rel=0.05)
    assert measured.delta_e_p95_screen == pytest.approx(np.percentile(differences, 95), rel=0.05)


def test_color_differences_are_those_of_scikit_image():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (20_000, 3), dtype=np.uint8)
    near = np.clip(first + rng.integers(-16, 17, first.shape), 0, 255).astype(np.uint8)
    greys = np.repeat(rng.integers(0, 256, (20_000, 1), dtype=np.uint8), 3, axis=1)
    for second in (near, greys, first):
        expected = deltaE_ciede2000(rgb2lab(first), rgb2lab(second))
        np.testing.assert_allclose(ciede2000(first, second), expected, rtol=3e-4, atol=2e-3)
        np.testing.assert_allclose(ciede2000(second, first), expected, rtol=3e-4, atol=2e-3)
    # Of opposite hues the mean has two values, and the formula a step.
    second = rng.integers(0, 256, first.shape, dtype=np.uint8)
    expected = deltaE_ciede2000(rgb2lab(first), rgb2lab(second))
    assert (np.abs(ciede2000(first, second) - expected) < 3e-3).mean() > 0.999
    assert ciede2000(first[:0], second[:0]).shape == (0,)


def test_color_differences_of_the_published_examples():
    """Sharma, Wu and Dalal 2005, table 1: pairs 1, 7, 17, 25, 34, by way of CIELAB."""
    pairs = np.array([
        [50, 2.6772, -79.7751, 50, 0, -82.7485, 2.0425],
        [50, 0, 0, 50, -1, 2, 2.3669],
        [50, 2.5, 0, 73, 25, -18, 27.1492],
        [60.2574, -34.0099, 36.2677, 60.4626, -34.1751, 39.4387, 1.2644],
        [2.0776, 0.0795, -1.1350, 0.9033, -0.0636, -0.5514, 0.9082],
    ], np.float32)  # fmt: skip
    found = color_difference.of_lab(pairs[:, :3].T, pairs[:, 3:6].T)
    np.testing.assert_allclose(found, pairs[:, 6], atol=2e-4)


@pytest.mark.parametrize("period", [2, 3.4, 5, 8, 10])
def test_every_fifth_window_stands_for_all_whatever_the_pattern(period):
    clean, _ = pair((250, 340), 0)
    rows = np.sin(2 * np.pi * np.arange(250) / period + 0.3)[:, None, None]
    protected = np.clip(clean + 16 * rows, 0, 255).astype(np.uint8)
    measured = fidelity.compare(clean, protected)
    assert measured.ssim == pytest.approx(ssim_of_scikit_image(clean, protected), abs=0.012)
    assert measured.ssim_luma == pytest.approx(ssim_of_luminance(clean, protected), abs=0.012)
