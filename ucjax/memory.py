"""Process memory on Linux: freed pages are kept for the next step instead of handed back."""

from __future__ import annotations

import ctypes
import platform

# <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_pages() -> bool:
    """Makes glibc's malloc reuse what it was given; returns whether it could.

    XLA's CPU backend allocates the temporaries of every step anew. By default glibc maps such
    large blocks afresh, and half the time of a large convolution goes into page faults. Must be
    called before the first computation, when threads have no arenas of their own yet.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1))
    return all(mallopt(name, value) == 1 for name, value in settings)
