"""What depends on the platform: how convolutions are written and how precisely surrogates compute.

Chosen while a function is traced.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def on_cpu() -> bool:
    """Whether what is traced now will run on a CPU."""
    return jax.default_backend() == "cpu"


def compute_dtype() -> Any:
    """What frozen networks compute in: bfloat16 on accelerators, float32 on a CPU.

    Their weights, their features and all that is trained stay float32.
    """
    return jnp.float32 if on_cpu() else jnp.bfloat16
