import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ucjax.files import fidelity


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
    assert fidelity.compare(black, white) == pytest.approx((255, 255, 255, 0, 0), abs=1e-3)
    assert fidelity.compare(white, white) == (0, 0, 0, math.inf, 1)
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
    assert fidelity.compare(clean, protected).ssim == pytest.approx(expected, abs=0.01)
