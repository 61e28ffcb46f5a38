"""What depends on the platform: how convolutions are written and how precisely surrogates compute.

Chosen while a function is traced, so that programs for other machines can be compiled here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)


@contextlib.contextmanager
def traced_for(platform: str) -> Iterator[None]:
    """Gives functions that are built and traced inside the forms of another platform."""
    token = _PLATFORM.set(platform)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


def on_cpu() -> bool:
    """Whether what is traced now will run on a CPU."""
    return (_PLATFORM.get() or jax.default_backend()) == "cpu"


def compute_dtype() -> Any:
    """What frozen networks compute in: bfloat16 on accelerators, float32 on a CPU.

    Their weights, their features and all that is trained stay float32.
    """
    return jnp.float32 if on_cpu() else jnp.bfloat16
