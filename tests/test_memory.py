import platform
import resource
import subprocess
import sys

import pytest

from ucjax import memory

# Fills 64 MB once, then ten times more, and counts the pages mapped meanwhile.
PROGRAM = """
import ctypes, resource, sys
from ucjax import memory
print(memory.keep_freed_pages() if sys.argv[1] == "keep" else True)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def touch():
    block = libc.malloc(2**26)
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def mapped_pages(mode):
    command = [sys.executable, "-c", PROGRAM, mode]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert output[0] == "True"
    return int(output[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc only")
def test_freed_pages_are_used_again():
    assert mapped_pages("default") > 10 * 2**26 / resource.getpagesize() / 2
    assert mapped_pages("keep") < 100


def test_other_platforms_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.platform, "system", lambda: "Darwin")
    assert memory.keep_freed_pages() is False
