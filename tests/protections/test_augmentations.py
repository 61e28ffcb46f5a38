import jax
import numpy as np
import pytest
from PIL import Image

from ucjax.protections import augmentations
from ucjax.runtime import parallel
from ucjax.runtime.parallel import REPLICATED, SHARDED


def pictures(n=8, side=16):
    return np.random.default_rng(0).random((n, side, side, 3), np.float32)


def run(augmentation, images, mesh, seed=0):
    program = parallel.pmap(
        lambda seed, x: augmentation(jax.random.key(seed), x),
        mesh=mesh, in_specs=(REPLICATED, SHARDED), out_specs=SHARDED,
    )  # fmt: skip
    seed = parallel.replicate(np.uint32(seed), mesh)
    return parallel.to_host(program(seed, parallel.shard(images, mesh)))


@pytest.mark.parametrize("augmentation", [augmentations.shifted, augmentations.strong(1.0)])
def test_devices_change_nothing_and_pixels_stay_pixels(augmentation, mesh, one_device):
    images = pictures()
    found = run(augmentation, images, mesh)
    np.testing.assert_allclose(found, run(augmentation, images, one_device), atol=2e-6)
    assert found.shape == images.shape
    assert found.min() >= -1e-6
    assert found.max() <= 1 + 1e-6
    assert np.abs(found - images).mean((1, 2, 3)).min() > 0.01, "every image changes"
    assert not np.allclose(found, run(augmentation, images, mesh, seed=1))


def test_whole_pixels_move_as_slices_do():
    images = pictures(2)
    start = np.array([[3.0, -2.0], [0.0, 0.0]])
    found = augmentations.resample(images, start, np.ones((2, 2)))
    np.testing.assert_allclose(found[1], images[1], atol=1e-6)
    np.testing.assert_allclose(found[0, :13, 2:], images[0, 3:, :14], atol=1e-6)
    assert not found[0, 13:].any()
    assert not found[0, :, :2].any()


def test_enlarging_is_bilinear_as_pillows():
    plane = pictures(1)[0, :, :, 0]
    box = (4.0, 2.0, 12.0, 14.0)  # left, top, right, bottom
    images = np.repeat(plane[None, :, :, None], 3, 3)
    scale = np.array([[12 / 16, 8 / 16]])
    found = augmentations.resample(images, np.array([[2.0, 4.0]]), scale, clamped=True)
    theirs = Image.fromarray(plane).resize((16, 16), Image.Resampling.BILINEAR, box)
    # Pillow repeats the border of the box, torchvision's crop does too: compare the inside.
    np.testing.assert_allclose(found[0, 2:-2, 2:-2, 0], np.asarray(theirs)[2:-2, 2:-2], atol=1e-5)


def test_grey_images_keep_their_hue_and_saturation(mesh):
    grey = np.repeat(pictures()[..., :1], 3, 3)
    found = run(augmentations.strong(1.0), grey, mesh)
    np.testing.assert_allclose(found, np.repeat(found[..., :1], 3, 3), atol=1e-3)


def test_gradients_reach_the_pixels(mesh):
    images = pictures()

    def gradient(key, x):
        return jax.grad(lambda y: (augmentations.strong(0.6)(key, y) ** 2).sum())(x)

    found = run(gradient, images, mesh)
    assert np.isfinite(found).all()
    assert (np.abs(found).max((1, 2, 3)) > 0).all()
