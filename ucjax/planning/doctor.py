"""Finds what is broken on this machine: its devices, its caches, and the processes of a pod.

No user name and no host name is in a report: the home folder is written "~".
"""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ucjax.runtime import parallel

_ACCELERATORS = (("nvidia[0-9]*", "an NVIDIA GPU", "cuda"), ("accel[0-9]*", "a TPU", "tpu"))

Facts = dict[str, str]


@dataclass(frozen=True)
class Report:
    """What was found, by section and name, and what is broken, one line each with its cure."""

    sections: dict[str, Facts]
    problems: tuple[str, ...]


def examine(*, multihost: bool = False) -> Report:
    """Looks at everything; with `multihost` all processes must call it together."""
    problems: list[str] = []
    sections = {
        "versions": {name: metadata.version(name) for name in ("ucjax", "jax", "jaxlib", "flax")},
        "devices": _devices(problems),
        "caches": _caches(problems),
    }
    if multihost and sections["devices"]:
        sections["processes"] = _processes(problems)
    return Report(sections, tuple(problems))


def text(report: Report) -> str:
    """Returns the report as plain text."""
    lines = []
    for section, facts in report.sections.items():
        lines += [section, *(f"  {name}: {value}" for name, value in facts.items())]
    lines += [f"problem: {problem}" for problem in report.problems] or ["no problems found"]
    return "\n".join(lines)


def _devices(problems: list[str]) -> Facts:
    chosen = os.environ.get("JAX_PLATFORMS", "")
    try:
        devices = jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # the latter where no plug-in is installed
        reason = " ".join(str(error).split())[:200] or f"JAX_PLATFORMS is {chosen!r}"
        cure = "unset JAX_PLATFORMS, or install an extra, such as pip install 'ucjax[cuda]'"
        problems.append(f"JAX finds no device ({reason}): {cure}")
        return {}
    for pattern, kind, extra in _ACCELERATORS:
        unused = devices[0].platform == "cpu" and "cpu" not in chosen
        if unused and any(Path("/dev").glob(pattern)):
            problems.append(f"{kind} is there but JAX uses the CPU: pip install 'ucjax[{extra}]'")
    return {f"{device.platform} {device.id}": device.device_kind for device in devices}


def _caches(problems: list[str]) -> Facts:
    ours = parallel.cache_folder()
    place = next(x for x in (ours, *ours.parents) if x.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        shown = _spelled(ours)
        problems.append(f"the cache {shown} cannot be written: set UCJAX_CACHE to another folder")
    programs = ours / "xla"
    if programs.is_dir() and programs.stat().st_mode & 0o022:
        shown = _spelled(programs)
        problems.append(f"others may write to {shown}, whose programs are run: chmod 700 {shown}")
    return {"decoded images": _spelled(ours / "images"), "compiled programs": _spelled(programs)}


def _spelled(folder: Path) -> str:
    home = Path.home()
    return str(Path("~") / folder.relative_to(home) if folder.is_relative_to(home) else folder)


def _processes(problems: list[str]) -> Facts:
    """Which process has which devices, and how long a sum over all of them takes."""
    owners = Counter(device.process_index for device in jax.devices())
    facts = {"processes": f"{jax.process_count()}, this is {jax.process_index()}"} | {
        f"process {process}": f"{owners[process]} × {jax.devices()[0].device_kind}"
        for process in range(jax.process_count())
    }
    if len(set(owners.values())) > 1 or len(owners) < jax.process_count():
        problems.append(
            f"processes have {min(owners.values())} to {max(owners.values())} devices: start them "
            "with as many each (under Slurm one process a GPU, --gres=gpu:N, not --gpus-per-task)"
        )
    return facts | _time_a_sum(problems)


def _time_a_sum(problems: list[str]) -> Facts:
    mesh = parallel.make_mesh()
    add = parallel.pmap(
        lambda x: lax.psum(jnp.sum(x), parallel.AXIS),
        mesh=mesh, in_specs=(parallel.SHARDED,), out_specs=parallel.REPLICATED,
    )  # fmt: skip
    ones, seconds, total = parallel.shard(np.ones(mesh.size, np.float32), mesh), [], 0.0
    for _ in range(11):  # the first one compiles
        start = time.perf_counter()
        total = float(parallel.to_host(add(ones)))
        seconds.append(time.perf_counter() - start)
    if total != mesh.size:
        problems.append(f"a sum over {mesh.size} devices is {total:g}: do not trust results here")
    return {"psum": f"{mesh.size} devices, {1e3 * statistics.median(seconds[1:]):.2f} ms"}
