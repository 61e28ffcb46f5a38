"""Unlearnable Clusters (CVPR 2023) in JAX: protect images from unauthorised training."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ucjax.api import compare, evaluate, load, preview, protect, verify

__all__ = ["__version__", "compare", "evaluate", "load", "preview", "protect", "verify"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # jax takes seconds to import, and most who import ucjax.something need only that.
    if name in __all__:
        return getattr(importlib.import_module("ucjax.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
