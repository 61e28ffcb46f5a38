"""The operations of a program as it is written, whatever forms the platform at hand prefers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import jax
from jax.extend.core import jaxpr_as_fun


def written(build: Callable[[], Any], arguments: tuple[Any, ...]) -> float:
    """Returns XLA's count for a program, in the form for accelerators, before XLA optimises it.

    Args:
      build: makes the function under `jax.jit`.
      arguments: of it; shapes suffice.
    """
    here = jax.default_backend()
    # A function of its own, as `jit` would give back what it traced for this platform.
    with mock.patch.object(jax, "default_backend", return_value="accelerator"):
        traced = build().trace(*arguments)
    return _count(traced.lower()) + _in_loops(traced.jaxpr.jaxpr, here)


def _in_loops(jaxpr: Any, platform: str) -> float:
    """Returns what XLA leaves out: it counts the body of a loop once, however long the loop."""
    return sum(_of_loop(equation, platform) for equation in jaxpr.eqns)


def _of_loop(equation: Any, platform: str) -> float:
    inner = sum(_in_loops(jaxpr, platform) for jaxpr in _inside(equation.params))
    length = equation.params["length"] if equation.primitive.name == "scan" else 1
    if length == 1:
        return inner
    body = equation.params["jaxpr"]
    traced = jax.jit(jaxpr_as_fun(body)).trace(*body.in_avals)
    # Inside `shard_map` there is a mesh without devices, hence no platform to find by itself.
    once = _count(traced.lower(lowering_platforms=(platform,)))
    return length * inner + (length - 1) * once


def _inside(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            part = getattr(part, "jaxpr", part)
            if hasattr(part, "eqns"):
                yield part


def _count(lowered: Any) -> float:
    return (lowered.cost_analysis() or {}).get("flops", 0.0)
