import hashlib
import os
import signal
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

from ucjax.errors import DiskError, UserError
from ucjax.runtime import checkpoint

TREE = {
    "bfloat16": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "deep": {"int": np.array([-1, 2**40]), "uint8": np.arange(3, dtype=np.uint8)},
    "list": [np.array(1.5, np.float32), np.zeros((0, 2), np.float32)],
    "none": None,
}


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)

    def same(a, b):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)

    jax.tree.map(same, found, expected)


def test_tree_round_trip(tmp_path):
    path = tmp_path / "new" / "folder" / "tree.safetensors"
    checkpoint.save_tree(path, TREE)
    assert_same(checkpoint.load_tree(path, TREE), TREE)
    assert [file.name for file in path.parent.iterdir()] == ["tree.safetensors"]


def test_optimizer_state_round_trip(tmp_path):
    # Its empty nodes (clip keeps no state) are not arrays, but belong to the structure.
    optimizer = optax.chain(optax.clip(1.0), optax.adamw(1e-3), optax.trace(0.9))
    state = jax.tree.map(np.asarray, optimizer.init({"w": jnp.ones((2, 3))}))
    checkpoint.save_tree(tmp_path / "state", state)
    assert_same(checkpoint.load_tree(tmp_path / "state", state), state)


def test_strided_arrays_keep_their_values(tmp_path):
    x = np.arange(12.0).reshape(3, 4)
    checkpoint.save_tree(tmp_path / "x", {"t": x.T, "step": x[:, ::2], "back": x[::-1]})
    found = checkpoint.load_arrays(tmp_path / "x")
    np.testing.assert_array_equal(found["t"], x.T)
    np.testing.assert_array_equal(found["step"], x[:, ::2])
    np.testing.assert_array_equal(found["back"], x[::-1])


def test_arrays_have_joined_names(tmp_path):
    checkpoint.save_tree(tmp_path / "x", TREE)
    assert set(checkpoint.load_arrays(tmp_path / "x")) == {
        "bfloat16", "deep/int", "deep/uint8", "list/0", "list/1",
    }  # fmt: skip


def test_bytes_depend_on_the_values_only(tmp_path):
    checkpoint.save_tree(tmp_path / "a", {"x": np.ones(3), "y": np.zeros(2, np.uint8)})
    checkpoint.save_tree(tmp_path / "b", {"y": np.zeros(2, np.uint8), "x": np.ones(3)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"x": np.ones(3), "z": np.ones(1)}, "2 of 3 arrays differ, first 'y'.* none here"),
        ({"x": np.ones(3)}, r"1 of 2 .* 'y' \(int64 \[2\] in the file, none here\)"),
        ({"x": np.ones(4), "y": np.zeros(2, int)}, r"'x' \(float64 \[3\] .* float64 \[4\] here"),
        ({"x": np.ones(3, np.float32), "y": np.zeros(2, int)}, r"'x'.* float32 \[3\] here"),
    ],
)
def test_another_structure_is_refused(tmp_path, like, message):
    checkpoint.save_tree(tmp_path / "x", {"x": np.ones(3), "y": np.zeros(2, int)})
    with pytest.raises(UserError, match=message):
        checkpoint.load_tree(tmp_path / "x", like)


@pytest.mark.parametrize("size", [0, 7, 60])
def test_damaged_files_are_refused(tmp_path, size):
    path = tmp_path / "x"
    checkpoint.save_tree(path, TREE)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=f"cannot read {path}.*delete it"):
        checkpoint.load_tree(path, TREE)


def test_json_round_trip_and_damage(tmp_path):
    value = {"a": [1, 2.5, None], "name": "Zürich"}
    checkpoint.write_json(tmp_path / "x.json", value)
    assert checkpoint.read_json(tmp_path / "x.json") == value
    (tmp_path / "x.json").write_text('{"a": [1, 2')
    with pytest.raises(UserError, match=r"x\.json is not valid JSON"):
        checkpoint.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "x"
    checkpoint.write_bytes(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DiskError, match=r"cannot write .*x: disk full; .* run again"):
        checkpoint.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_write_leaves_the_old_file_and_the_next_one_tidies_up(tmp_path):
    path = tmp_path / "x[1]"  # no pattern
    checkpoint.write_bytes(path, b"old")
    program = textwrap.dedent(f"""
        import os, pathlib, signal
        from ucjax.runtime import checkpoint
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.write_bytes(pathlib.Path({str(path)!r}), b"new")
    """)
    killed = subprocess.run([sys.executable, "-c", program], timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    checkpoint.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_sha256(tmp_path):
    data = bytes(range(256)) * 1000
    checkpoint.write_bytes(tmp_path / "x", data)
    assert checkpoint.sha256(tmp_path / "x") == hashlib.sha256(data).hexdigest()
