import numpy as np

from ucjax.protections import controls


def test_full_budget_and_balance():
    for size, epsilon_255 in ((5, 1), (32, 16), (33, 128)):
        noise = controls.image_signs(7, 3, size, epsilon_255)
        assert noise.shape == (size, size, 3)
        assert noise.dtype == np.float32
        np.testing.assert_array_equal(np.abs(noise), np.float32(epsilon_255 / 255))
        # Four standard deviations of a fair coin.
        assert abs(np.sign(noise).mean()) < 4 / np.sqrt(noise.size)


def test_noise_depends_on_seed_and_index_only():
    first = controls.image_signs(0, 5, 16, 16)
    controls.image_signs(0, 6, 16, 16)
    np.testing.assert_array_equal(controls.image_signs(0, 5, 16, 16), first)
    few, many = (controls.cluster_signs(0, p, 16, 16) for p in (2, 5))
    assert many.shape == (5, 16, 16, 3)
    np.testing.assert_array_equal(many[:2], few)


def test_a_cell_has_one_sign():
    for grain, size in ((4, 32), (3, 32)):
        noise = controls.cluster_signs(1, 2, size, 16, grain=grain)
        assert noise.shape == (2, size, size, 3)
        cells = np.arange(size) // grain
        np.testing.assert_array_equal(noise, noise[:, cells * grain][:, :, cells * grain])
        np.testing.assert_array_equal(
            noise[:, ::grain, ::grain], controls.cluster_signs(1, 2, len(set(cells)), 16)
        )


def test_noises_are_independent():
    images = [controls.image_signs(seed, i, 32, 16) for seed in (0, 1) for i in range(4)]
    signs = np.sign([*images, *controls.cluster_signs(0, 4, 32, 16)]).reshape(12, -1)
    correlation = np.corrcoef(signs) - np.eye(12)
    assert np.abs(correlation).max() < 5 / np.sqrt(32 * 32 * 3)
