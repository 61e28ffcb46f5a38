import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ucjax.data import decode

RNG = np.random.default_rng(0)


def noise(h, w, channels=3):
    return RNG.integers(0, 256, (h, w, channels), np.uint8)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def rgb(image):
    result = decode.decode(image)
    assert result.mode == "RGB"
    return np.asarray(result)


def png16(values, color_type):
    """Writes uint16 [h, w, channels] as a 16-bit PNG, which Pillow itself cannot."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    h, w, _ = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", w, h, 16, color_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + parts))


# decode: every kind of pixel


def test_eight_bit_kinds():
    pixels = noise(5, 7)
    grey, bits = pixels[..., 0], pixels[..., 0] > 128
    palette = Image.fromarray(pixels).quantize(16)
    np.testing.assert_array_equal(rgb(saved(Image.fromarray(pixels), "PNG")), pixels)
    np.testing.assert_array_equal(
        rgb(saved(Image.fromarray(pixels), "WEBP", lossless=True)), pixels
    )
    np.testing.assert_array_equal(rgb(saved(Image.fromarray(pixels), "BMP")), pixels)
    for kind in ("PNG", "BMP", "TIFF"):
        np.testing.assert_array_equal(
            rgb(saved(Image.fromarray(grey), kind)), np.repeat(grey[..., None], 3, 2)
        )
    np.testing.assert_array_equal(
        rgb(saved(Image.fromarray(bits), "PNG")), np.repeat(bits[..., None] * np.uint8(255), 3, 2)
    )
    colors = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(rgb(saved(palette, "PNG")), colors[np.asarray(palette)])


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    # Saturated inks: cyan, magenta, yellow and black in quarters of the picture.
    inks = np.zeros((16, 16, 4), np.uint8)
    for i, (y, x) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
        inks[y : y + 8, x : x + 8, i] = 255
    decoded = rgb(saved(Image.fromarray(inks, "CMYK"), kind))
    expected = {(4, 4): (0, 255, 255), (4, 12): (255, 0, 255), (12, 4): (255, 255, 0), (12, 12): 0}
    for place, color in expected.items():
        np.testing.assert_allclose(decoded[place], color, atol=3)


def test_alpha_is_composited_on_white():
    pixels = noise(6, 6, 4)
    alpha = pixels[..., 3:] / 255
    over_white = pixels[..., :3] * alpha + 255 * (1 - alpha)
    rgba = Image.fromarray(pixels)
    np.testing.assert_allclose(rgb(saved(rgba, "PNG")), over_white, atol=1)
    np.testing.assert_allclose(rgb(saved(rgba, "TIFF")), over_white, atol=1)
    grey = saved(Image.fromarray(pixels[..., [0, 3]], "LA"), "PNG")
    np.testing.assert_allclose(rgb(grey)[..., 1], over_white[..., 0], atol=1)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_one_transparent_color_becomes_white(mode):
    red = np.full((4, 4, 3), (200, 10, 10), np.uint8)
    red[:2] = (10, 10, 90)
    image = Image.fromarray(red)
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    hidden = image.getpixel((0, 0))
    decoded = rgb(saved(image, "PNG", transparency=hidden))
    assert (decoded[:2] == 255).all()
    np.testing.assert_array_equal(decoded[2:], rgb(image)[2:])
    assert (decoded[2:] != 255).any()


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    expected = ramp / 257
    for kind in ("PNG", "TIFF"):
        grey = rgb(saved(Image.fromarray(ramp), kind))
        np.testing.assert_allclose(grey, np.repeat(expected[..., None], 3, 2), atol=1)
    color = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)
    np.testing.assert_allclose(rgb(png16(color, 2)), color / 257, atol=1)
    opaque = np.concatenate([color, np.full((8, 8, 1), 65535, np.uint16)], -1)
    np.testing.assert_allclose(rgb(png16(opaque, 6)), color / 257, atol=1)
    faint = np.concatenate([ramp[..., None], np.full((8, 8, 1), 32768, np.uint16)], -1)
    np.testing.assert_allclose(rgb(png16(faint, 4))[..., 2], expected / 2 + 127.5, atol=1.5)
    # The same grey through either door: grey and colour lose their low byte alike.
    np.testing.assert_array_equal(rgb(png16(np.stack([ramp] * 3, -1), 2))[..., 0], grey[..., 0])


def test_an_eight_bit_picture_survives_sixteen_bits():
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    decoded = rgb(saved(Image.fromarray(levels * 257), "PNG"))
    np.testing.assert_array_equal(decoded[..., 0], levels)


@pytest.mark.parametrize(
    ("dtype", "white"),
    [(np.int32, 65535), (np.int32, 2**31 - 1), (np.float32, 1), (np.float32, 255)],
)
def test_wide_numbers_are_scaled_to_their_white(dtype, white):
    ramp = np.linspace(0, white, 64).astype(dtype).reshape(8, 8)
    decoded = rgb(saved(Image.fromarray(ramp), "TIFF"))
    np.testing.assert_allclose(decoded[..., 0], ramp.astype(float) / white * 255, atol=1)


def test_floats_outside_every_range():
    values = np.array([[np.nan, np.inf], [-4.0, 1.0]], np.float32)
    assert rgb(Image.fromarray(values))[..., 0].tolist() == [[0, 255], [0, 255]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = noise(4, 6)
    turned = upright.swapaxes(0, 1)
    # EXIF: which visual side the stored row 0 and column 0 are, e.g. 6 = right side, top.
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: turned, 6: turned[::-1], 7: turned[::-1, ::-1], 8: turned[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF"):
        image = saved(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
        np.testing.assert_array_equal(rgb(image), upright)


def test_a_damaged_exif_block_does_not_lose_the_picture():
    pixels = noise(4, 4)
    image = saved(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(rgb(image), pixels)


def test_first_frame_of_an_animation():
    first, second = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    for kind, options in {"GIF": {}, "WEBP": {"lossless": True}, "TIFF": {}}.items():
        image = saved(first, kind, save_all=True, append_images=[second], **options)
        assert rgb(image)[0, 0].tolist() == [255, 0, 0]


# resize and crops: torchvision's geometry


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((500, 375), 256, (341, 256)),  # 341.33
        ((375, 500), 256, (256, 341)),
        ((333, 500), 256, (256, 384)),  # 384.38
        ((100, 100), 256, (256, 256)),
        ((20, 7), 8, (22, 8)),  # 22.86: rounded down
        ((7, 20), 8, (8, 22)),
    ],
)
def test_resized_size(size, short_side, expected):
    assert decode.resize(Image.new("RGB", size), short_side).size == expected


def triangle(n_in, n_out):
    """Weights [n_out, n_in] of antialiased bilinear resampling, from its definition."""
    scale = n_in / n_out
    support = max(scale, 1.0)
    centers = (np.arange(n_out) + 0.5) * scale
    distance = np.abs(np.arange(n_in) + 0.5 - centers[:, None]) / support
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (9, 11), (24, 24)])
def test_resize_is_antialiased_bilinear(shape):
    pixels = noise(*shape)
    resized = np.asarray(decode.resize(Image.fromarray(pixels), 24))
    h, w = resized.shape[:2]
    expected = np.einsum("yh,xw,hwc->yxc", triangle(shape[0], h), triangle(shape[1], w), pixels)
    np.testing.assert_allclose(resized, expected, atol=1.01)  # Pillow rounds after each axis


def test_elongated_pictures_are_refused():
    limit = decode.MAX_ASPECT
    assert decode.resize(Image.new("RGB", (2 * limit, 2)), 8).size == (8 * limit, 8)
    with pytest.raises(ValueError, match="5000 x 1 pixels: more than 20 times"):
        decode.resize(Image.new("RGB", (5000, 1)), 256)
