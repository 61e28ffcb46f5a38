import numpy as np
import pytest
from baselines import give

from ucjax.errors import UserError
from ucjax.protections import int8

SHAPE = (16, 16, 3)


def expected(indices):
    return np.random.default_rng(0).integers(-16, 17, (22, *SHAPE), np.int8)[indices]


def test_a_killed_map_goes_on_at_its_block(tmp_path):
    path, made = tmp_path / "noise.int8", []

    def make(indices, killed_at=None):
        if killed_at in indices:
            raise KeyboardInterrupt
        made.append(indices.tolist())
        return expected(indices)

    with pytest.raises(KeyboardInterrupt):
        int8.fill(path, 22, 16, 5, lambda indices: make(indices, killed_at=12))
    assert not path.exists()
    int8.fill(path, 22, 16, 5, make)
    assert [i for block in made for i in block] == list(range(22)), "no block is made twice"
    int8.fill(path, 22, 16, 5, lambda indices: pytest.fail("it is there"))
    np.testing.assert_array_equal(int8.read(path, 22, 16), expected(np.arange(22)))
    assert [p.name for p in tmp_path.iterdir()] == ["noise.int8"]


def test_patterns_are_levels_over_255(tmp_path, mesh):
    given, path = give("lsp", tmp_path, mesh), tmp_path / int8.NOISE
    int8.fill(path, 22, 16, 8, expected)
    noise = int8.noise(path, given, 7)
    assert (noise.image_passes, noise.epsilon_255, noise.clusters) == (7, 16, None)
    pattern = noise.patterns.of(21)
    assert pattern.dtype == np.float32
    np.testing.assert_array_equal(np.rint(pattern * 255), expected([21])[0])
    picture = np.full(SHAPE, 100, np.uint8)
    added = noise.add(21, picture, whole=False).astype(int) - 100
    np.testing.assert_array_equal(added, expected([21])[0])


def test_a_map_of_another_size_is_refused(tmp_path):
    path = tmp_path / "noise.int8"
    path.write_bytes(bytes(100))
    with pytest.raises(UserError, match="has 100 bytes, not 16896"):
        int8.read(path, 22, 16)
