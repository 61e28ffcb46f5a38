import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ucjax.data.images import Item
from ucjax.errors import UserError
from ucjax.victims import defences


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (37, 53, 3), np.uint8))


def seen(picture, *treatments):
    item = Item("a/b.png", picture.copy, 2, "key")
    treated = defences.defend(item, treatments)
    assert (treated.name, treated.label) == (item.name, item.label)
    with treated.open() as image:
        assert image.mode == "RGB"
        assert image.size == picture.size
        return np.asarray(image).astype(int)


@pytest.mark.parametrize("quality", [10, 75, 100])
def test_jpeg_is_pillows(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    np.testing.assert_array_equal(seen(picture, f"jpeg{quality}"), np.asarray(Image.open(file)))


def test_jpeg_loses_more_at_lower_quality(picture):
    pixels = np.asarray(picture).astype(int)
    losses = [np.abs(seen(picture, f"jpeg{q}") - pixels).mean() for q in (10, 50, 90)]
    assert losses[0] > losses[1] > losses[2] > 0


def test_grey_is_luma(picture):
    grey = seen(picture, "grey")
    luma = np.asarray(picture) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - luma[..., None]).max() <= 1


@pytest.mark.parametrize("kept", range(1, 9))
def test_bits_are_the_top_ones(picture, kept):
    mask = 0xFF & ~(0xFF >> kept)
    np.testing.assert_array_equal(seen(picture, f"bits{kept}"), np.asarray(picture) & mask)


def test_lowpass_averages_and_keeps_what_is_smooth(picture):
    rows, columns = np.mgrid[:40, :60]
    slope = np.stack([2 * rows + columns, columns + 90, 3 * rows + 60], -1).astype(np.uint8)
    inner = np.s_[8:-8, 8:-8]
    through = seen(Image.fromarray(slope), "lowpass4")
    assert np.abs(through[inner] - slope[inner].astype(int)).max() <= 2
    checks = np.where((rows + columns) % 2, 255, 0)[..., None].repeat(3, -1).astype(np.uint8)
    assert np.abs(seen(Image.fromarray(checks), "lowpass2") - 127.5).max() < 20
    noise = np.asarray(picture).std()
    assert seen(picture, "lowpass8").std() < seen(picture, "lowpass2").std() < noise


@pytest.mark.parametrize("side", [3, 5])
def test_median_is_scipys(picture, side):
    theirs = ndimage.median_filter(np.asarray(picture), (side, side, 1), mode="nearest")
    inner = np.s_[side:-side, side:-side]
    np.testing.assert_array_equal(seen(picture, f"median{side}")[inner], theirs[inner])


@pytest.mark.parametrize("sigma", [1, 4])
def test_blur_is_scipys(picture, sigma):
    pixels = np.asarray(picture, float)
    theirs = ndimage.gaussian_filter(pixels, (sigma, sigma, 0), mode="reflect", truncate=3)
    assert np.abs(seen(picture, f"blur{sigma}") - theirs).max() < 0.51


def test_resize_and_back_is_torchvisions_way_there(picture):
    small = picture.resize((int(20 * 53 / 37), 20), Image.Resampling.BILINEAR)
    back = np.asarray(small.resize(picture.size, Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(seen(picture, "resize20"), back)
    np.testing.assert_array_equal(seen(picture, "resize37"), np.asarray(picture))


def test_treatments_follow_one_another_in_order(picture):
    both = seen(picture, "bits2", "jpeg50")
    bits = Image.fromarray(seen(picture, "bits2").astype(np.uint8))
    np.testing.assert_array_equal(both, seen(bits, "jpeg50"))
    assert (both != seen(picture, "jpeg50", "bits2")).any()


def test_pictures_are_decoded_first():
    """Treated as the exploiter sees them: transparent ones on white, as elsewhere."""
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (seen(clear, "grey") == 255).all()


def test_the_cache_tells_treated_pictures_apart(picture):
    item = Item("a.png", picture.copy, 0, "key")
    ways = [(), ("grey",), ("jpeg75",), ("jpeg76",), ("grey", "jpeg75"), ("jpeg75", "grey")]
    assert len({defences.defend(item, way).content_key for way in ways}) == len(ways)
    assert defences.defend(item, ()) is item


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("jpeg", "'jpeg' is written jpegN, with N from 1 to 100"),
        ("jpeg0", "N from 1 to 100"),
        ("jpeg101", "N from 1 to 100"),
        ("bits9", "N from 1 to 8"),
        ("lowpass1", "N from 2"),
        ("median4", "'median4' is written medianN, with N from 3 to 15 in steps of 2"),
        ("grey2", "'grey2': grey takes no number"),
        ("jpg75", "unknown recipe or treatment 'jpg': did you mean jpeg"),
        ("quuux", "choose one of .*cutout.*lowpass"),
    ],
)
def test_unknown_treatments_and_numbers(picture, part, message):
    with pytest.raises(UserError, match=message):
        seen(picture, part)
