"""What depends on the platform: how convolutions are written and how precisely surrogates compute.

Chosen while a function is traced.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def on_cpu() -> bool:
    """Whether what is traced now will run on a CPU."""
    return jax.default_backend() == "cpu"


_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
PRECISIONS = ("auto", *_DTYPES)


def compute_dtype(precision: str = "auto") -> Any:
    """What frozen networks compute in: "auto" is bfloat16 on accelerators, float32 on a CPU.

    Their weights, their features and all that is trained stay float32.
    """
    if precision == "auto":
        return jnp.float32 if on_cpu() else jnp.bfloat16
    return _DTYPES[precision]


def exact(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gives the float32 products of `function` all their digits, its derivative's too.

    Accelerators round the factors otherwise: GPUs to 10 bits (TF32), TPUs to bfloat16's 7.
    """

    @functools.wraps(function)
    def precise(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args)

    return precise
