import dataclasses
import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load as parse_safetensors
from safetensors.numpy import save as dump_safetensors

from ucjax import config
from ucjax.errors import UserError
from ucjax.protections import gratings, protector
from ucjax.protections.noise import Noise, Pixels, on_whole
from ucjax.protections.protector import Protector
from ucjax.protections.waves import Gratings
from ucjax.surrogates import Preprocessing, Surrogate

EPS = 16 / 255


def example(**changes):
    rng = np.random.default_rng(0)
    values = {
        "noise": rng.uniform(-EPS, EPS, (3, 8, 8, 3)).astype(np.float32),
        "centers": rng.normal(size=(3, 5)).astype(np.float32),
        "surrogate_name": "efficientnet_lite0",
        "surrogate_path": "",
        "surrogate_id": "efficientnet_lite0",
        "surrogate_sha256": "ab" * 32,
        "mean": (0.1, 1 / 3, 0.5),
        "std": (0.25, 0.5, 1.0),
        "epsilon_255": 16,
        "norm": "linf",
        "grain": 2,
        "short_side": 10,
        "crop": 8,
        "seed": 4,
        "versions": {"jax": "0.10.2", "flax": "0.12.8"},
    }
    return Protector(**(values | changes))


def of_gratings(p=3, epsilon_255=16, short_side=10, **changes):
    carriers = gratings.draw(0, p, "1/5,1/3", "chroma")
    waves = Gratings(carriers, epsilon_255, short_side, "sine")
    return example(**{"noise": None, "gratings": waves, "grain": 1} | changes)


def test_round_trip(tmp_path):
    written = example()
    protector.save(written, tmp_path)
    read = protector.load(tmp_path)
    for field in dataclasses.fields(Protector):
        a, b = getattr(written, field.name), getattr(read, field.name)
        if isinstance(a, np.ndarray):
            assert b.dtype == a.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b, field.name
            assert type(a) is type(b), field.name


def test_equal_protectors_give_equal_bytes(tmp_path):
    protector.save(example(), tmp_path / "a")
    protector.save(example(noise=np.asfortranarray(example().noise)), tmp_path / "b")
    protector.save(protector.load(tmp_path / "a"), tmp_path / "c")
    for name in ("protector.safetensors", "protector.json"):
        content = (tmp_path / "a" / name).read_bytes()
        assert (tmp_path / "b" / name).read_bytes() == content
        assert (tmp_path / "c" / name).read_bytes() == content
    assert sorted(x.name for x in (tmp_path / "a").iterdir()) == [
        "protector.json",
        "protector.safetensors",
    ]


def test_what_the_surrogate_computed_in_is_kept(tmp_path):
    surrogate = Surrogate(None, {}, 8, Preprocessing((0.0,) * 3, (1.0,) * 3), "s", "ab" * 32)
    for asked, kept in (("auto", "float32"), ("float32", "float32"), ("bfloat16", "bfloat16")):
        settings = config.photos()
        settings.surrogate.precision = asked
        made = protector.of_noise(
            Noise(Pixels(example().noise.__getitem__, 8, 10, 16), np.arange(3), 16),
            centers=example().centers, surrogate=surrogate, config=settings, seed=0, versions={},
        )  # fmt: skip
        assert made.surrogate_precision == kept
    protector.save(example(surrogate_precision="bfloat16"), tmp_path)
    assert protector.load(tmp_path).surrogate_precision == "bfloat16"
    # Protectors from before it was written down.
    path = tmp_path / protector.DESCRIPTION
    old = json.loads(path.read_text())
    del old["surrogate_precision"], old["sha256"]
    path.write_text(json.dumps({**old, "sha256": protector._seal(old)}))
    assert protector.load(tmp_path).surrogate_precision == "auto"
    with pytest.raises(ValueError, match="surrogate_precision is 'half'"):
        protector.save(example(surrogate_precision="half"), tmp_path)


def test_gratings_take_a_few_hundred_bytes_and_come_back(tmp_path):
    written = of_gratings()
    assert (written.kind, example().kind) == ("gratings", "pixels")
    protector.save(written, tmp_path / "a")
    read = protector.load(tmp_path / "a")
    protector.save(read, tmp_path / "b")
    for name in ("protector.safetensors", "protector.json"):
        content = (tmp_path / "a" / name).read_bytes()
        assert (tmp_path / "b" / name).read_bytes() == content
    beside_centers = (tmp_path / "a" / protector.TENSORS).stat().st_size - written.centers.nbytes
    assert beside_centers < 500
    assert read.noise is None
    picture = np.random.default_rng(1).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for row in range(3):
        added = on_whole(read.patterns(), row, picture)
        np.testing.assert_array_equal(added, on_whole(written.gratings, row, picture))
        assert read.patterns().sha256(row) == written.patterns().sha256(row)
    assert isinstance(example().patterns(), Pixels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"p": 2}, "2 gratings do not fit 3 centres"),
        ({"norm": "rms"}, "linf"),
        ({"epsilon_255": 8, "crop": 7}, r"\(8, 10\) in a protector of \(16, 10\)"),
        ({"short_side": 11}, r"\(16, 11\) in a protector of \(16, 10\)"),
        ({"noise": np.zeros((3, 8, 8, 3), np.float32)}, "both noise and gratings"),
        ({"gratings": None}, "or neither"),
    ],
)
def test_contradictions_of_gratings_are_not_published(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        protector.save(of_gratings(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


def replace_tensors(**changes):
    """Other tensors, by someone who knows how the checksums are made."""

    def apply(folder):
        path = folder / "protector.safetensors"
        tensors = dump_safetensors(parse_safetensors(path.read_bytes()) | changes)
        path.write_bytes(tensors)
        reseal("tensors_sha256", hashlib.sha256(tensors).hexdigest())(folder)

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda: reseal("kind", "pixels"), "holds no protector"),
        (lambda: reseal("kind", "plasma"), "neither pixels nor gratings"),
        (lambda: reseal("kind", None), "neither pixels nor gratings"),
        (lambda: reseal("epsilon_255", "16"), "holds no protector"),
        (lambda: reseal("short_side", 4), "does not fit"),
        (lambda: replace_tensors(wave=np.array([7], np.uint8)), "holds no protector.*wave"),
        (lambda: replace_tensors(carriers=np.full((3, 6), np.nan)), "not finite"),
        (lambda: replace_tensors(carriers=np.full((3, 6), 2.0)), "out of range"),
        (lambda: replace_tensors(carriers=np.zeros((3, 6), np.float32)), "float32"),
        (lambda: replace_tensors(extra=np.zeros(1)), "gratings are carriers and wave"),
    ],
)
def test_damaged_gratings_are_refused_in_one_line(damage, message, tmp_path):
    protector.save(of_gratings(), tmp_path)
    damage()(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        protector.load(tmp_path)
    assert "\n" not in str(caught.value)


def constant(level):
    return np.full((3, 8, 8, 3), level, np.float32)


def one_bright_pixel(level):
    noise = np.zeros((3, 8, 8, 3), np.float32)
    noise[1, 2, 3, 0] = level
    return noise


def test_budget_is_reached_but_not_exceeded(tmp_path):
    # One value of length eps * sqrt(8 * 8 * 3) has the l2 norm of an image of eps everywhere.
    longest = EPS * np.sqrt(8 * 8 * 3)
    for within in (
        example(noise=constant(EPS)),
        example(noise=constant(-EPS)),
        example(noise=constant(EPS), norm="rms"),
        example(noise=one_bright_pixel(longest), norm="rms"),
    ):
        protector.save(within, tmp_path)
        protector.load(tmp_path)
    for over in (
        example(noise=constant(17 / 255)),
        example(noise=one_bright_pixel(-16.01 / 255)),
        example(noise=constant(16.01 / 255), norm="rms"),
        example(noise=one_bright_pixel(longest * 1.01), norm="rms"),
    ):
        with pytest.raises(ValueError, match="over its budget of 16/255"):
            protector.save(over, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": constant(0)[:2]}, "fits neither"),
        ({"noise": constant(0)[:, :7]}, "fits neither"),
        ({"crop": 7}, "fits neither"),
        ({"short_side": 7}, "crop 8 does not fit into short side 7"),
        ({"centers": np.full((3, 5), np.nan, np.float32)}, "not finite"),
        ({"noise": constant(np.inf)}, "not finite"),
        ({"noise": constant(0).astype(np.float64)}, "float64"),
        ({"norm": "l1"}, "'l1'"),
        ({"epsilon_255": 0}, "epsilon_255 0"),
        ({"noise": constant(0)[:0], "centers": np.zeros((0, 5), np.float32)}, "empty"),
    ],
)
def test_contradictions_are_not_published(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        protector.save(example(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def edit(key, value):
    def apply(folder):
        path = folder / "protector.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    return apply


def reseal(key, value):
    """An edit by someone who knows how the seal is made."""

    def apply(folder):
        edit(key, value)(folder)
        path = folder / "protector.json"
        described = json.loads(path.read_text())
        del described["sha256"]
        path.write_text(json.dumps(described | {"sha256": protector._seal(described)}))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "protector.json").unlink(), "no protector at"),
        (lambda folder: (folder / "protector.safetensors").unlink(), "cannot read"),
        (lambda folder: (folder / "protector.json").write_text("{"), "json is damaged"),
        (lambda folder: (folder / "protector.json").write_text("[]"), "no protector of format 3"),
        (lambda folder: (folder / "protector.safetensors").write_bytes(b""), "sha256"),
        (lambda folder: flip_byte(folder / "protector.safetensors"), "sha256"),
        (edit("epsilon_255", 32), "edited"),
        (edit("mean", [0, 0, 0]), "edited"),
        (edit("format", 1), "no protector of format 3"),
        (reseal("epsilon_255", 8), "over its budget of 8/255"),
        (reseal("epsilon_255", "16"), "epsilon_255 is '16', no whole number"),
        (reseal("mean", None), "holds no protector"),
        (reseal("short_side", 4), "does not fit"),
    ],
)
def test_damaged_and_edited_files_are_refused_in_one_line(damage, message, tmp_path):
    protector.save(example(), tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        protector.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_another_protectors_tensors_are_refused(tmp_path):
    protector.save(example(), tmp_path / "a")
    protector.save(example(noise=constant(0)), tmp_path / "b")
    (tmp_path / "b" / "protector.safetensors").rename(tmp_path / "a" / "protector.safetensors")
    with pytest.raises(UserError, match="sha256"):
        protector.load(tmp_path / "a")
