"""Files are put together from pickle's opcodes here: torch is not needed to read or to test."""

import hashlib
import pickle
import struct

import numpy as np
import pytest

from ucjax.errors import UserError
from ucjax.surrogates import legacy_torch

MAGIC = 0x1950A86A20F9469CFC6C
PLATFORM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"long": 4}}
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def numbers(values):
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def tensor(key, length, offset, shape, strides, kind="FloatStorage"):
    storage = text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    storage = b"(" + storage + b"J" + struct.pack("<i", length) + b"NtQ"
    view = b"J" + struct.pack("<i", offset) + numbers(shape) + numbers(strides)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + view + b"\x89" + ORDERED_DICT + b"tR"


def state_dict(**tensors):
    entries = b"".join(text(name) + value for name, value in tensors.items())
    return b"\x80\x02" + ORDERED_DICT + b"(" + entries + b"u."


def assemble(state, storages, magic=MAGIC, version=1001):
    parts = [pickle.dumps(value, 2) for value in (magic, version, PLATFORM)]
    parts += [state, pickle.dumps(list(storages), 2)]
    parts += [struct.pack("<q", data.size) + data.tobytes() for data in storages.values()]
    return b"".join(parts)


def read(path, data):
    path.write_bytes(data)
    return legacy_torch.read(path, hashlib.sha256(data).hexdigest())


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


SIX = {"a": np.arange(6, dtype=np.float32)}


def test_views_of_storages(file):
    storages = SIX | {"b": np.array([7], np.int64)}
    state = state_dict(
        matrix=tensor("a", 6, 0, (2, 3), (3, 1)),
        transposed=tensor("a", 6, 0, (3, 2), (1, 3)),
        tail=tensor("a", 6, 4, (2,), (1,)),
        count=tensor("b", 1, 0, (), (), "LongStorage"),
        nothing=tensor("a", 6, 0, (0, 5), (5, 1)),
    )
    arrays = read(file, assemble(state, storages))
    assert list(arrays) == ["matrix", "transposed", "tail", "count", "nothing"]
    np.testing.assert_array_equal(arrays["matrix"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(arrays["transposed"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(arrays["tail"], [4, 5])
    assert arrays["count"] == 7
    assert arrays["count"].dtype == np.int64
    assert arrays["nothing"].shape == (0, 5)


class Call:
    """Pickles into a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker):
    import os
    import subprocess

    return {
        r"(posix|nt)\.system": Call(os.system, f"touch {marker}"),
        r"builtins\.eval": Call(eval, f"open({str(marker)!r}, 'w')"),
        r"builtins\.exec": Call(exec, f"open({str(marker)!r}, 'w')"),
        r"builtins\.getattr": Call(getattr, "", "join"),
        r"subprocess\.Popen": Call(subprocess.Popen, ["touch", str(marker)]),
        r"numpy\.load": Call(np.load, str(marker)),
    }


@pytest.mark.parametrize("attack", attacks(""))
@pytest.mark.parametrize("position", [0, 3, 4])
def test_code_is_refused_by_name(file, tmp_path, attack, position):
    marker = tmp_path / "ran"
    parts = [pickle.dumps(value, 2) for value in (MAGIC, 1001, PLATFORM)]
    parts += [state_dict(a=tensor("a", 6, 0, (6,), (1,))), pickle.dumps(["a"], 2)]
    parts[position] = pickle.dumps(attacks(marker)[attack])
    with pytest.raises(UserError, match=rf"refused: .* {attack}, and only tensors are read"):
        read(file, b"".join(parts))
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    ["torch\nload", "torch._utils\n_rebuild_tensor", "torch.storage\n_load_from_bytes",
     "collections\nabc", "collections\nOrderedDict.fromkeys", "torch\nFloatStorage.__init__"],
)  # fmt: skip
def test_neighbours_of_the_known_names_are_refused(file, name):
    with pytest.raises(UserError, match="refused"):
        read(file, assemble(b"\x80\x04c" + name.encode() + b"\n.", {}))


def test_the_checksum_comes_before_the_pickle(file, tmp_path):
    marker = tmp_path / "ran"
    file.write_bytes(pickle.dumps(attacks(marker)[r"builtins\.eval"]))
    with pytest.raises(UserError, match=rf"has SHA-256 \w+, expected {'ab' * 32}: not the"):
        legacy_torch.read(file, "ab" * 32)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (state_dict(x=tensor("a", 6, 1, (2, 3), (3, 1))), "ends at element 6 of a storage of 6"),
        (state_dict(x=tensor("a", 6, 0, (2,), (1000,))), "ends at element 1000"),
        (state_dict(x=tensor("a", 6, 5, (3,), (-1,))), "strides"),
        (state_dict(x=tensor("a", 6, -1, (3,), (1,))), "offset -1"),
        (state_dict(x=tensor("a", 6, 0, (3, 1), (1,))), "shape"),
        (state_dict(x=tensor("a", 5, 0, (3,), (1,))), "6 elements instead of 5"),
        (state_dict(x=tensor("b", 6, 0, (3,), (1,))), "KeyError"),
        (state_dict(x=text("y")), "entry 'x' is a str"),
        (pickle.dumps([1], 2), "holds a list"),
        (b"\x80\x02X", "no state dict"),
    ],
)
def test_damage_is_one_clear_error(file, state, reason):
    with pytest.raises(UserError, match=reason):
        read(file, assemble(state, SIX))


def test_other_files(file):
    good = assemble(state_dict(a=tensor("a", 6, 0, (6,), (1,))), SIX)
    assert read(file, good)["a"].shape == (6,)
    for data in (b"", b"PK\x03\x04" + good, good[:-1], assemble(b"}.", {}, magic=1)):
        with pytest.raises(UserError, match="no state dict of a legacy PyTorch file"):
            read(file, data)
