import hashlib
import itertools
import math
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ucjax import config, names
from ucjax.clusters.kmeans import Clusters
from ucjax.data.decode import resize
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.protections import gratings, table, waves
from ucjax.protections.contract import Given
from ucjax.protections.noise import on_whole
from ucjax.protections.waves import COLOR, LEAST_PERIOD, PHASE, Gratings
from ucjax.runtime.progress import MetricsFile

BANDS = "1/75,1/40,1/21"
REC_601 = np.array([0.299, 0.587, 0.114])
EPSILONS = (1, 8, 16, 128)


def drawn(color="chroma", p=10, epsilon_255=16, wave="square", short_side=256, seed=0):
    return Gratings(gratings.draw(seed, p, BANDS, color), epsilon_255, short_side, wave)


def pictures():
    """What leaves a wave no room, and what leaves it some."""
    rng = np.random.default_rng(0)
    shape = (61, 83, 3)
    yield rng.integers(0, 256, shape, dtype=np.uint8)
    yield np.zeros(shape, np.uint8)
    yield np.full(shape, 255, np.uint8)
    yield np.full(shape, 128, np.uint8)
    yield rng.choice(np.array([0, 255], np.uint8), shape)
    yield np.broadcast_to(np.array([255, 0, 3], np.uint8), shape)
    yield np.clip(rng.normal(0, 12, shape), 0, 255).astype(np.uint8)


def change(pattern, row, picture, *, whole=True):
    return (on_whole if whole else Gratings.add)(pattern, row, picture).astype(int) - picture


def expected_wave(carrier, size, short_side):
    """The wave in float64, from its definition, and where its sign is beyond doubt."""
    angle, period, phase = carrier[:3]
    y, x = (np.arange(side) - (side - 1) / 2 for side in size)
    turns = (x * math.cos(angle) + y[:, None] * math.sin(angle)) / (period * short_side) + phase
    sine = np.sin(2 * np.pi * turns)
    return sine, np.abs(sine) > 1e-3


@pytest.mark.parametrize("color", ["chroma", "luma", "all"])
@pytest.mark.parametrize("wave", ["square", "sine"])
@pytest.mark.parametrize("epsilon_255", EPSILONS)
def test_no_value_leaves_the_budget(color, wave, epsilon_255):
    pattern = drawn(color, 4, epsilon_255, wave)
    reached = 0
    for picture, row in itertools.product(pictures(), range(4)):
        delta = np.abs(change(pattern, row, picture))
        assert delta.max() <= epsilon_255
        reached = max(reached, delta.max())
    assert reached == min(epsilon_255, 127)  # more has no value on both sides


@pytest.mark.parametrize("color", ["chroma", "luma", "all"])
def test_with_room_it_is_the_wave_of_its_definition(color):
    pattern = drawn(color, 7)
    picture = np.full((211, 300, 3), 120, np.uint8)
    for row, carrier in enumerate(pattern.carriers):
        sine, certain = expected_wave(carrier, (211, 300), 211)
        expected = np.sign(sine)[..., None] * 16 * carrier[COLOR]
        delta = change(pattern, row, picture)
        assert np.abs(delta - expected)[certain].max() <= 0.5 + 16 / 512
        assert certain.mean() > 0.99
    smooth = replace(pattern, wave="sine")
    for row, carrier in enumerate(smooth.carriers):
        sine, _ = expected_wave(carrier, (211, 300), 211)
        expected = 16 * sine[..., None] * carrier[COLOR]
        # The amplitude is rounded, then its product with the colour.
        assert np.abs(change(smooth, row, picture) - expected).max() <= 1.1


@pytest.mark.parametrize("wave", ["square", "sine"])
@pytest.mark.parametrize("epsilon_255", EPSILONS)
def test_color_stays_color_where_there_is_no_room(wave, epsilon_255):
    pattern = drawn("chroma", 10, epsilon_255, wave)
    for picture, row in itertools.product(pictures(), range(10)):
        luminance = change(pattern, row, picture) @ REC_601
        assert np.abs(luminance).max() <= 0.75, "more than rounding does to three channels"


@pytest.mark.parametrize("color", ["chroma", "luma", "all"])
def test_a_surface_without_room_takes_no_tint(color):
    pattern = drawn(color, 10)
    for level in (0, 3, 9, 244, 250, 255):
        wall = np.broadcast_to(np.array([level, 128, 255 - level], np.uint8), (128, 128, 3))
        # Half a turn on, every pixel changes by as much to the other side.
        other = replace(pattern, carriers=pattern.carriers.copy())
        other.carriers[:, PHASE] = (other.carriers[:, PHASE] + 0.5) % 1
        for row in range(10):
            assert (change(pattern, row, wall) == -change(other, row, wall)).all()


def test_a_pixel_is_scaled_as_a_whole_and_as_little_as_possible():
    for color in ("chroma", "luma", "all"):
        pattern = Gratings(gratings.draw(0, 7, "1/12", color), 16, 256)
        for picture in pictures():
            for row, carrier in enumerate(pattern.carriers):
                sine, certain = expected_wave(carrier, picture.shape[:2], 61)
                aim = np.sign(sine)[..., None] * carrier[COLOR]
                # The channel with the least room for its share of the wave decides for all three.
                full = np.rint(16 * np.abs(aim))
                room = np.minimum(picture, 255.0 - picture)
                share = np.divide(room, full, out=np.ones_like(room), where=full > 0).min(axis=-1)
                amplitude = 16 * np.minimum(share, 1)[..., None] * aim
                # Amplitudes are whole levels, so at most one below, and changes are rounded.
                gap = np.abs(change(pattern, row, picture) - amplitude)[certain]
                assert gap.max() <= 1.55


def phasor(delta, carrier, short_side):
    """The complex amplitude of a wave in a change `[h, w, 3]`, in levels, inside a window."""
    size = delta.shape[:2]
    angle, period, _ = carrier[:3]
    y, x = (np.arange(side) - (side - 1) / 2 for side in size)
    turns = (x * math.cos(angle) + y[:, None] * math.sin(angle)) / (period * short_side)
    window = np.hanning(size[0])[:, None] * np.hanning(size[1])
    color = carrier[COLOR] / np.linalg.norm(carrier[COLOR])
    wave = np.exp(-2j * np.pi * turns) * window / window.sum()
    return 2 * (wave * (delta @ color)).sum()


def reduced(picture, short_side):
    return np.asarray(resize(Image.fromarray(picture), short_side)).astype(float)


def test_one_protector_gives_one_cue_at_any_size():
    pattern = drawn("chroma", 3, seed=5)
    common = 200
    for row, carrier in enumerate(pattern.carriers):
        found = {}
        for side in (200, 1000, 4000):
            flat = np.full((side, side * 5 // 4, 3), 128, np.uint8)
            delta = reduced(on_whole(pattern, row, flat), common) - 128
            found[side] = phasor(delta, carrier, common)
        full = 16 * np.linalg.norm(carrier[COLOR])
        frequency = 1 / (carrier[waves.PERIOD] * common)
        axes = (math.cos(carrier[0]) * frequency, math.sin(carrier[0]) * frequency)
        blurred = np.prod(np.sinc(axes) ** 2)  # by the triangle that resizing averages with
        for side, value in found.items():
            turns = np.angle(value * np.exp(-2j * np.pi * carrier[waves.PHASE]) * 1j) / (2 * np.pi)
            assert abs(turns) < 0.02, (row, side)
            share = abs(value) / (full * 4 / math.pi * (blurred if side > common else 1))
            assert share == pytest.approx(1, abs=0.08), (row, side)


@pytest.mark.parametrize("wave", ["square", "sine"])
def test_a_victim_sees_in_whole_files_what_crops_show(wave):
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(60, 196, (9, 12, 3), dtype=np.uint8))
    picture = np.asarray(coarse.resize((900, 640), Image.Resampling.BICUBIC))
    pattern = drawn("all", 6, wave=wave)
    crop = (slice(16, 240), slice(68, 292))
    clean = np.asarray(resize(Image.fromarray(picture), 256))[crop]
    for row in range(6):
        seen = reduced(on_whole(pattern, row, picture), 256)[crop] - clean
        shown = change(pattern, row, clean, whole=False)
        correlation = np.corrcoef(seen.ravel(), shown.ravel())[0, 1]
        assert correlation > (0.95 if wave == "sine" else 0.85), row
        others = [change(pattern, other, clean, whole=False) for other in range(6) if other != row]
        assert all(abs(np.corrcoef(seen.ravel(), o.ravel())[0, 1]) < 0.15 for o in others)


def test_the_finest_wave_is_no_finer_than_pixels_hold():
    small = np.full((40, 64, 3), 128, np.uint8)
    pattern = drawn("luma", 1)
    carrier = pattern.carriers[0].copy()
    assert carrier[waves.PERIOD] * 40 < LEAST_PERIOD
    carrier[waves.PERIOD] = LEAST_PERIOD / 40
    sine, certain = expected_wave(carrier, (40, 64), 40)
    np.testing.assert_array_equal(
        change(pattern, 0, small)[certain], 16 * np.sign(sine)[certain][:, None].repeat(3, 1)
    )


@pytest.mark.parametrize("wave", ["square", "sine"])
def test_bands_of_rows_are_the_whole(wave, monkeypatch):
    picture = np.random.default_rng(2).integers(0, 256, (150, 97, 3), dtype=np.uint8)
    picture[40:80] = 128  # bands with room for the wave take a shorter way
    pattern = drawn("chroma", 3, wave=wave)
    results = []
    for rows in (150, 64, 7, 1):
        monkeypatch.setattr(waves, "_MAX_ROWS", rows)
        results.append([on_whole(pattern, row, picture) for row in range(3)])
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    part = on_whole(pattern, 1, picture[:, ::-1][::-1])  # views with odd strides
    np.testing.assert_array_equal(part, on_whole(pattern, 1, picture[::-1, ::-1].copy()))


def test_a_huge_picture_costs_little_beyond_itself():
    picture = np.full((8000, 12_500, 3), 250, np.uint8)  # 100 megapixels without enough room
    pattern = drawn("luma", 2)
    tracemalloc.start()
    added = on_whole(pattern, 1, picture)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - added.nbytes < 16 * 2**20
    assert np.abs(added[::97].astype(int) - 250).max() == 5


PINNED = {
    "square": "fbedb99f38a7f19f74a3e034c2b9a1fbdeb56e18cb6dea64e0e72c1514789fc0",
    "sine": "df57e0bd57e06eaf2d32ab2d726b0afe8f5043b27d31ec0abc42df97febb70ca",
}


@pytest.mark.parametrize("wave", ["square", "sine"])
@pytest.mark.parametrize("threads", [1, 3])
def test_bytes_are_pinned_and_do_not_depend_on_threads(wave, threads):
    rng = np.random.default_rng(3)
    pattern = drawn("chroma", 6, seed=11, wave=wave)
    given = [rng.integers(0, 256, (90 + i, 120 - i, 3), dtype=np.uint8) for i in range(6)]
    with ThreadPoolExecutor(threads) as pool:
        made = pool.map(lambda i: (on_whole, Gratings.add)[i % 2](pattern, i, given[i]), range(6))
        found = hashlib.sha256(b"".join(x.tobytes() for x in made))
    assert found.hexdigest() == PINNED[wave]


def test_carriers_are_drawn_from_the_seed_alone_and_differ():
    for color, p in itertools.product(("chroma", "luma", "all"), (2, 10, 40)):
        carriers = gratings.draw(0, p, BANDS, color)
        np.testing.assert_array_equal(carriers, gratings.draw(0, p, BANDS, color))
        np.testing.assert_array_equal(carriers[: p // 2], gratings.draw(0, p // 2, BANDS, color))
        other = gratings.draw(1, p, BANDS, color)
        assert (np.abs(carriers[:, :3] - other[:, :3]) > 1e-6).all()
        apart = gratings.distances(carriers)
        np.testing.assert_allclose(np.diag(apart), 0, atol=1e-6)
        np.testing.assert_allclose(apart, apart.T)
        least = (apart + 9 * np.eye(p)).min()
        assert least > {2: 0.9, 10: 0.3, 40: 0.05}[p], (color, p)
        assert (np.abs(carriers[:, COLOR]).max(axis=1) == 1).all()
    luminance = gratings.draw(3, 40, BANDS, "chroma")[:, COLOR] @ REC_601
    np.testing.assert_allclose(luminance, 0, atol=1e-12)
    periods = gratings.draw(0, 9, "1/75,1/40,1/21", "luma")[:, 1]
    np.testing.assert_allclose(periods, np.tile([1 / 75, 1 / 40, 1 / 21], 3), rtol=0.081)


def test_orientations_of_a_band_are_spread():
    for p in (10, 40):
        angle = np.sort(gratings.draw(4, p, "1/75", "luma")[:, 0])
        gaps = np.diff([*angle, angle[0] + math.pi])
        assert gaps.min() > 0.38 * math.pi / p, "the golden ratio's worst gap, Swinbank 2006"
        assert gaps.max() < 2 * math.pi / p


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"carriers": np.zeros((0, 6))}, "empty"),
        ({"carriers": np.zeros((2, 5))}, r"float64 \[2, 5\]"),
        ({"carriers": gratings.draw(0, 2, BANDS, "all").astype(np.float32)}, "float32"),
        ({"carriers": np.full((2, 6), np.nan)}, "not finite"),
        ({"epsilon_255": 0}, "epsilon_255 0"),
        ({"epsilon_255": 256}, "epsilon_255 256"),
        ({"wave": "saw"}, "'saw'"),
        ({"short_side": 0}, "short side 0"),
        *[
            ({"carriers": np.array([[0.5, 0.1, 0.5, 1, 0, 0], row])}, "carrier 1 has values out")
            for row in (
                [-0.1, 0.1, 0.5, 1, 0, 0],
                [math.pi, 0.1, 0.5, 1, 0, 0],
                [0.5, 0.0, 0.5, 1, 0, 0],
                [0.5, 1.1, 0.5, 1, 0, 0],
                [0.5, 0.1, 1.0, 1, 0, 0],
                [0.5, 0.1, 0.5, 1.1, 0, 0],
                [0.5, 0.1, 0.5, 0.9, 0, 0],
            )
        ],
    ],
)
def test_impossible_gratings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(drawn("all", 2), **changes)


def test_arrays_hold_it_all():
    for wave in ("square", "sine"):
        pattern = drawn("chroma", 3, 8, wave)
        again = Gratings.load(pattern.arrays(), 8, 256)
        assert again.wave == wave
        assert [again.sha256(i) for i in range(3)] == [pattern.sha256(i) for i in range(3)]
    hashes = {drawn(seed=s).sha256(row) for s in (0, 1) for row in range(10)}
    hashes |= {drawn(**change).sha256(0) for change in (
        {"epsilon_255": 8}, {"wave": "sine"}, {"short_side": 255}, {"color": "luma"}
    )}  # fmt: skip
    assert len(hashes) == 24
    arrays = drawn().arrays()
    for broken in (
        {"carriers": arrays["carriers"]},
        {**arrays, "noise": np.zeros(1)},
        {**arrays, "wave": np.array([2], np.uint8)},
        {**arrays, "wave": np.array([0], np.int64)},
        {**arrays, "wave": np.array(0, np.uint8)},
    ):
        with pytest.raises(ValueError, match="wave"):
            Gratings.load(broken, 16, 256)


SHORT, CROP, P = 40, 36, 4


@pytest.fixture
def given(mesh, tmp_path):
    n, rng = 23, np.random.default_rng(1)
    images = ImageSet(
        rows=rng.integers(0, 256, (n * 48, SHORT, 3), dtype=np.uint8),
        starts=np.arange(n + 1) * 48,
        wide=rng.random(n) < 0.5,
        labels=(np.arange(n) % 3 * 2).astype(np.int32),
        names=tuple(f"{i}.png" for i in range(n)),
        class_names=("a", "b", "c", "d", "e"),
    )
    assignment = (np.arange(n) % P).astype(np.int32)
    centers = np.array([[0, 0], [0.1, 0], [5, 5], [5, 5.1]], np.float32)
    settings = config.with_settings(
        config.photos(), {"data__short_side": SHORT, "data__crop": CROP, "clusters__k": P}
    )

    def given(row="gratings", **others):
        shared, options = table.resolve(names.parse(row, "row"), settings)
        values = {
            "images": images, "config": shared, "options": options, "seed": 3,
            "clusters": lambda: Clusters(centers, assignment, 0.0, 1),
            "surrogate": lambda: pytest.fail("no wave needs one"), "folder": tmp_path, "mesh": mesh,
            "metrics": MetricsFile(tmp_path / "metrics.jsonl"),
        }  # fmt: skip
        return Given(**(values | others))

    return given


def test_the_row_gives_each_cluster_one_carrier(given):
    protection = table.find(names.parse("gratings", "row"))
    noise = protection.fit(given("gratings:eps=8:bands=1/12,0.2:color=all:wave=sine"))
    assert (noise.epsilon_255, noise.norm, noise.image_passes) == (8, "linf", 0)
    assert (noise.patterns.wave, noise.patterns.short_side) == ("sine", SHORT)
    np.testing.assert_array_equal(noise.row, noise.clusters)
    assert [noise.cluster(i) for i in range(5)] == [0, 1, 2, 3, 0]
    assert len({noise.sha256(i) for i in range(P)}) == P
    drawn = gratings.draw(3, P, "1/12,0.2", "all")
    np.testing.assert_array_equal(np.sort(noise.patterns.carriers[:, 0]), np.sort(drawn[:, 0]))
    again = protection.fit(given("gratings:eps=8:bands=1/12,0.2:color=all:wave=sine"))
    np.testing.assert_array_equal(again.patterns.carriers, noise.patterns.carriers)
    other = protection.fit(given("gratings:eps=8", seed=4))
    assert not {*other.patterns.carriers[:, 0]} & {*noise.patterns.carriers[:, 0]}


def test_near_clusters_get_carriers_far_apart(given):
    """Two pairs of near clusters: within a pair the carriers are farther apart than by chance."""
    chosen, chance = [], []
    for seed in range(12):
        noise = gratings.fit(given(seed=seed))
        apart = gratings.distances(noise.patterns.carriers)
        chosen.append(apart[0, 1] + apart[2, 3])
        chance.append((apart.sum() / (P * (P - 1))) * 2)
        pairings = [apart[0, 1] + apart[2, 3], apart[0, 2] + apart[1, 3], apart[0, 3] + apart[1, 2]]
        assert chosen[-1] == pytest.approx(max(pairings))
    assert np.mean(chosen) > np.mean(chance) + 0.1


def test_folders_are_clusters_if_asked(given):
    def never():
        raise AssertionError("no clusters are needed")

    noise = gratings.fit(given("gratings:labels=folders", clusters=never))
    np.testing.assert_array_equal(noise.row, np.arange(23) % 3)
    assert len(noise.patterns.carriers) == 3
    unlabelled = replace(given().images, labels=np.full(23, -1, np.int32))
    with pytest.raises(UserError, match="labels=folders"):
        gratings.fit(given("gratings:labels=folders", images=unlabelled))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("gratings:bands=1/0", "bands of row gratings is '1/0'"),
        ("gratings:bands=1/75,", "bands of row gratings"),
        ("gratings:bands=3", "bands of row gratings is '3'"),
        ("gratings:bands=nan", "bands of row gratings"),
        ("gratings:color=chrome", "did you mean chroma"),
        ("gratings:wave=saw", "unknown wave of row gratings 'saw': choose one of"),
        ("gratings:eps=0", "eps of row gratings is 0"),
    ],
)
def test_wrong_settings_are_one_line(row, message, given):
    with pytest.raises(UserError, match=message) as caught:
        gratings.fit(given(row))
    assert "\n" not in str(caught.value)
