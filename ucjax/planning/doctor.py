"""Describes an installation for a bug report, and finds what is broken in it.

No user name and no host name is in it: the home folder is written "~".
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import platform
import re
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from packaging.requirements import Requirement

from ucjax import config, surrogates
from ucjax.errors import UserError
from ucjax.runtime import parallel
from ucjax.surrogates import pretrained

OPTIONAL = ("tensorflow", "pillow-heif", "datasets", "webdataset", "libtpu")
VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE", "JAX_PLATFORMS", "TFDS_DATA_DIR",
    "UCJAX_CACHE", "XLA_FLAGS", "XLA_PYTHON_CLIENT_MEM_FRACTION",
)  # fmt: skip
_PACKAGE = Path(__file__).parent
_ROOT = _PACKAGE.parent

Facts = dict[str, str]


@dataclass(frozen=True)
class Report:
    """What was found, by section and name, and what is broken, one line each with its cure."""

    sections: dict[str, Facts]
    problems: tuple[str, ...]


def examine(*, multihost: bool = False) -> Report:
    """Looks at everything; with `multihost` all processes must call it together."""
    problems: list[str] = []
    looks: dict[str, Callable[[list[str]], Facts]] = {
        "ucjax": _versions,
        "packages": _packages,
        "optional packages": lambda problems: {x: _version(x) or "not installed" for x in OPTIONAL},
        "machine": _machine,
        "devices": _devices,
        "environment": lambda problems: {x: os.environ[x] for x in VARIABLES if x in os.environ},
        "caches": _caches,
        "weights": _weights,
    }
    sections = {name: look(problems) for name, look in looks.items()}
    if multihost and sections["devices"]:
        sections["processes"] = _processes(problems)
    anonymous = json.loads(_without_home(json.dumps([sections, problems])))
    return Report(anonymous[0], tuple(anonymous[1]))


def text(report: Report) -> str:
    """Returns the report as plain text."""
    lines = []
    for section, facts in report.sections.items():
        lines.append(section)
        lines += [f"  {name}: {value}" for name, value in facts.items()] or ["  none"]
    lines += [f"problem: {problem}" for problem in report.problems] or ["no problems found"]
    return "\n".join(lines)


def to_json(report: Report) -> str:
    """Returns the report as indented JSON."""
    return json.dumps(dataclasses.asdict(report), indent=2)


def _without_home(encoded: str) -> str:
    home = json.dumps(str(Path.home()))[1:-1]
    whole = rf"(?<![\w.-]){re.escape(home)}(?![\w.-])"
    return re.sub(whole, "~", encoded) if len(home) > 1 else encoded


def _versions(problems: list[str]) -> Facts:
    facts = {"version": metadata.version("ucjax"), "python": platform.python_version()}
    facts |= {"platform": platform.platform(), "installed in": str(_PACKAGE)}
    if (_ROOT / ".git").exists() and shutil.which("git"):
        commit = _git("rev-parse", "HEAD")
        changed = len(_git("status", "--porcelain").splitlines())
        facts["git"] = f"{commit}, {changed} files changed" if changed else commit
    return facts


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return done.stdout.strip()


def _packages(problems: list[str]) -> Facts:
    """Versions of what ucjax requires, and of what JAX's programs are made by."""
    facts = {}
    for line in metadata.requires("ucjax") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        facts[requirement.name] = found or "missing"
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            problems.append(
                f"package {requirement.name} is {found or 'missing'}, needed is "
                f"{requirement.specifier}: run pip install '{requirement}'"
            )
    return facts | {"jaxlib": _version("jaxlib") or "missing"}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _machine(problems: list[str]) -> Facts:
    page = os.sysconf("SC_PAGE_SIZE")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": f"{platform.machine()}, {os.cpu_count()} cores, {usable} usable",
        "memory": _size(os.sysconf("SC_PHYS_PAGES") * page),
        "disk free here": _size(shutil.disk_usage(".").free),
    }


def _devices(problems: list[str]) -> Facts:
    try:
        devices = jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # the latter where no plug-in is installed
        chosen = os.environ.get("JAX_PLATFORMS", "")
        problems.append(
            f"JAX finds no device ({_line(error) or f'JAX_PLATFORMS is {chosen!r}'}): unset "
            "JAX_PLATFORMS, or install the extra for it, such as pip install 'ucjax[cuda]'"
        )
        return {}
    if devices[0].platform == "cpu" and "cpu" not in os.environ.get("JAX_PLATFORMS", ""):
        for pattern, kind, extra in (
            ("nvidia[0-9]*", "an NVIDIA GPU", "cuda"),
            ("accel[0-9]*", "a TPU", "tpu"),
        ):
            if any(Path("/dev").glob(pattern)):
                problems.append(
                    f"{kind} is there but JAX uses the CPU: pip install 'ucjax[{extra}]'"
                )
    return {f"{device.platform} {device.id}": _described(device) for device in devices}


def _described(device: jax.Device) -> str:
    memory = device.memory_stats() or {}
    if "bytes_limit" not in memory:
        return device.device_kind
    used, limit = memory.get("bytes_in_use", 0), memory["bytes_limit"]
    return f"{device.device_kind}, {_size(used)} of {_size(limit)} used"


def _caches(problems: list[str]) -> Facts:
    from huggingface_hub import constants

    ours = parallel.cache_folder()
    tfds = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    facts = {
        "decoded images": _folder(ours / "images"),
        "compiled programs": _folder(ours / "xla"),
        "Hugging Face": _folder(Path(constants.HF_HUB_CACHE)),
        "TFDS": _folder(tfds),
    }
    place = next(x for x in (ours, *ours.parents) if x.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        problems.append(f"the cache {ours} cannot be written: set UCJAX_CACHE to another folder")
    programs = ours / "xla"
    if programs.is_dir() and programs.stat().st_mode & 0o022:
        problems.append(
            f"others may write to {programs}, whose programs are run: chmod 700 {programs}"
        )
    return facts


def _folder(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}, not there"
    sizes = []
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):  # another process cleans up
            if file.is_file() and not file.is_symlink():
                sizes.append(file.stat().st_size)
    writable = "" if os.access(folder, os.W_OK) else ", read-only"
    return f"{folder}, {len(sizes)} files, {_size(sum(sizes))}{writable}"


def _weights(problems: list[str]) -> Facts:
    """Which surrogates can be loaded without a network, with the checksums of their files."""
    facts = {}
    try:
        loaded = surrogates.load("efficientnet_lite0", path="", image_size=64)
        facts["efficientnet_lite0"] = f"{loaded.id}, sha256 {loaded.sha256}, as published"
    except UserError as error:
        facts["efficientnet_lite0"] = "cannot be loaded"
        problems.append(f"weights of efficientnet_lite0: {error}")
    packaged = sorted(_PACKAGE.glob("**/model.safetensors"))
    places: dict[str, Path | None] = {f"packaged {x.parent.name}": x.parent for x in packaged}
    places |= {name: _downloaded(repo) for name, repo in config.SURROGATES.items()}
    for name, folder in places.items():
        label = f"{name} ({config.SURROGATES[name]})" if name in config.SURROGATES else name
        if folder is None:
            facts[label] = "not in Hugging Face's cache"
            continue
        try:
            found = pretrained.find(str(folder))
            files = ", ".join(file.name for file in found.weights)
            facts[label] = f"{files}, sha256 {pretrained.sha256(found)}"
        except (UserError, OSError) as error:
            facts[label] = "damaged"
            problems.append(f"weights of {label}: {_line(error)}; delete {folder}")
    return facts


def _downloaded(repo: str) -> Path | None:
    from huggingface_hub import snapshot_download

    with contextlib.suppress(OSError):
        return Path(snapshot_download(repo, local_files_only=True))
    return None


def _processes(problems: list[str]) -> Facts:
    """Which process has which devices, and how long a sum over all of them takes."""
    owners = Counter(device.process_index for device in jax.devices())
    facts = {"processes": f"{jax.process_count()}, this is {jax.process_index()}"}
    for process in range(jax.process_count()):
        mine = [device for device in jax.devices() if device.process_index == process]
        listed = ", ".join(str(device.id) for device in mine)
        facts[f"process {process}"] = (
            f"{len(mine)} × {mine[0].device_kind} ({listed})" if mine else "no device"
        )
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


def _size(count: float) -> str:
    power = min(int(math.log10(max(count, 1)) / 3), 3)
    return f"{count / 1000**power:.{min(power, 1)}f} {('B', 'kB', 'MB', 'GB')[power]}"


def _line(error: Any) -> str:
    return " ".join(str(error).split())[:200]
