import io

import numpy as np
import pytest
from PIL import Image

from ucjax.files import cue
from ucjax.protections import gratings
from ucjax.protections.noise import on_whole
from ucjax.protections.waves import Gratings


def picture(height=200, width=256):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def pattern(color="chroma", bands="1/40", p=4):
    return Gratings(gratings.draw(0, p, bands, color), 16, 256)


def decoded(pixels, **settings):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **settings)
    return np.asarray(Image.open(file))


def test_it_is_the_projection():
    clean = picture()
    target = on_whole(pattern(), 1, clean)
    rng = np.random.default_rng(1)
    found = np.clip(target + rng.normal(0, 3, clean.shape), 0, 255).astype(np.uint8)
    d, t = (x.astype(float) - clean for x in (found, target))
    assert cue.share(clean, target, found) == pytest.approx((d * t).sum() / (t * t).sum())
    assert cue.share(clean, target, target) == 1
    assert cue.share(clean, target, clean) == 0


def test_amplitudes_and_other_cues_are_told_apart():
    clean = picture() // 2 + 64
    waves = pattern()
    target = on_whole(waves, 0, clean)
    half = on_whole(Gratings(waves.carriers, 8, 256), 0, clean)
    assert cue.share(clean, target, half) == pytest.approx(0.5, abs=0.01)
    for other in range(1, 4):
        assert abs(cue.share(clean, target, on_whole(waves, other, clean))) < 0.05


def test_jpeg_keeps_much_of_a_middle_wave_and_less_the_harder_it_compresses():
    clean = picture()
    target = on_whole(pattern(), 0, clean)
    fine = decoded(target, quality=95, subsampling=0)
    coarse = decoded(target, quality=30, subsampling=2)
    assert 0.9 < cue.share(clean, target, fine) < 1.1
    assert cue.share(clean, target, coarse) < cue.share(clean, target, fine) - 0.1
    # What the codec does to the picture itself is no cue.
    assert abs(cue.share(clean, target, decoded(clean, quality=30, subsampling=2))) < 0.05


def test_without_a_cue_there_is_no_share():
    clean = picture()
    with pytest.raises(ValueError, match="no cue"):
        cue.share(clean, clean, clean)
    with pytest.raises(ValueError, match="pictures of"):
        cue.share(clean, clean[1:], clean)


def test_some_rows_stand_for_all(monkeypatch):
    clean = picture()
    target = on_whole(pattern(bands="1/75,1/40,1/21,1/4"), 3, clean)
    found = decoded(target, quality=80, subsampling=2)
    assert cue.sampled_share(clean, target, found) == cue.share(clean, target, found)
    monkeypatch.setattr(cue, "_SAMPLED", clean.size // 8)
    for row in range(4):
        target = on_whole(pattern(bands="1/75,1/40,1/21,1/4"), row, clean)
        found = decoded(target, quality=80, subsampling=2)
        whole = cue.share(clean, target, found)
        assert cue.sampled_share(clean, target, found) == pytest.approx(whole, abs=0.1)
        assert cue.sampled_share(clean, target, target) == 1
