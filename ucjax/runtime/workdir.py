"""The folder of one run: which config it belongs to, and where the run took place."""

from __future__ import annotations

import json
import platform
import shlex
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax.errors import StaleError
from ucjax.runtime import checkpoint, parallel

# What may change between two runs in one workdir: rows, columns and seeds choose what is made and
# trained, the others do not touch results.
FREE_KEYS = {
    "protections", "victims", "seeds", "noise_seeds", "modules", "availability", "expected_time",
    "feed_budget_mb", "data.cache",
}  # fmt: skip
PACKAGES = ("ucjax", "jax", "jaxlib", "flax", "optax", "transformers", "numpy", "pillow")


def claim(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json, or checks that the workdir holds a run of the same config.

    Raises:
      StaleError: it holds another one; names the first key that differs and both values.
    """
    path = workdir / "config.json"
    ours = plain(config)
    if parallel.agree(path.exists()):
        before, now = flat(checkpoint.read_json(path)), flat(ours)
        keys = sorted((before.keys() | now.keys()) - FREE_KEYS)
        # A setting that a later version added, and that is off, changes nothing.
        different = [key for key in keys if (before.get(key) or None) != (now.get(key) or None)]
        if different:
            key = different[0]
            raise StaleError(
                f"{workdir} holds a run with config.{key} = {before.get(key)!r}, this one has "
                f"{now.get(key)!r} ({len(different)} keys differ): use another --workdir, or "
                "delete that one"
            )
    if parallel.is_main():
        checkpoint.write_json(path, ours)
    parallel.barrier("workdir")


def record_environment(workdir: Path, command: Sequence[str], mesh: Mesh) -> dict[str, Any]:
    """Writes and returns env.json: versions, devices, processes and the command."""
    device = mesh.devices.flat[0]
    value = {
        "command": _pastable(command),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "devices": f"{mesh.size} × {device.device_kind} ({device.platform})",
        "processes": jax.process_count(),
        "packages": versions(),
    }
    if parallel.is_main():
        checkpoint.write_json(workdir / "env.json", value)
    return value


def _pastable(command: Sequence[str]) -> str:
    """Returns what was typed, as a shell takes it, wherever the program lies on this machine."""
    program = Path(command[0])
    first = [program.name]
    if program.suffix == ".py" and program.parent.name == "ucjax":
        module = "ucjax" if program.stem == "__main__" else f"ucjax.{program.stem}"
        first = ["python", "-m", module]
    return shlex.join([*first, *command[1:]])


def versions() -> dict[str, str]:
    """Returns the versions of what decides results."""
    return {name: metadata.version(name) for name in PACKAGES}


def plain(config: ConfigDict) -> dict[str, Any]:
    """Returns the resolved config as JSON would hold it (tuples as lists)."""
    return json.loads(json.dumps(config.to_dict()))


def pretty(config: ConfigDict) -> str:
    """Returns one line a key, `section.key = value`."""
    return "\n".join(f"  {key} = {value!r}" for key, value in flat(plain(config)).items())


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested settings as one dictionary with dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return found
