"""Devices and processes: one mesh, a `pmap` over it, and the doors between host and devices.

Per-device functions use named-axis collectives over `AXIS`. Arrays stay global: an array
`[n, ...]` sharded with `P(AXIS)` is seen by the mapped function as `[n / devices, ...]`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ucjax.errors import UserError

AXIS = "devices"
SHARDED = P(AXIS)
REPLICATED = P()


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Puts all devices (of all processes) on one axis.

    The axis is `Auto`: under `make_mesh`'s default, `Explicit`, gathers and `segment_sum`
    do not trace.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def pmap(
    function: Callable[..., Any],
    *,
    mesh: Mesh,
    in_specs: Any,
    out_specs: Any,
    donate_argnums: tuple[int, ...] = (),
) -> Callable[..., Any]:
    """Maps a per-device function over the mesh, as `jax.pmap(axis_name=AXIS)` does.

    `jax.pmap` is itself `jit(shard_map)` since jax 0.10; stating that directly keeps arrays
    global, so that they need no host round trip on pods. Gradients are per device
    (`check_vma=False`), as under `jax.pmap`: the function says where they are summed.
    """
    mapped = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=donate_argnums)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies host arrays, equal on every process, to every device."""
    return jax.tree.map(lambda x: _place(x, NamedSharding(mesh, REPLICATED)), tree)


def shard(tree: Any, mesh: Mesh) -> Any:
    """Splits host arrays `[n, ...]`, equal on every process, over the devices along axis 0.

    Raises:
      ValueError: n is no multiple of the number of devices; see `pad`.
    """
    for x in jax.tree.leaves(tree):
        if len(x) % mesh.size:
            raise ValueError(f"{len(x)} rows cannot be shared equally by {mesh.size} devices: pad")
    return jax.tree.map(lambda x: _place(x, NamedSharding(mesh, SHARDED)), tree)


def _place(value: Any, sharding: NamedSharding) -> jax.Array:
    value = np.asarray(value)
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def pad(x: np.ndarray, multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads `[n, ...]` to a multiple of `multiple` rows by repeating the last row.

    Returns the padded array and a float32 mask `[n_padded]`, 1 for real rows.
    """
    missing = -len(x) % multiple
    mask = np.concatenate([np.ones(len(x), np.float32), np.zeros(missing, np.float32)])
    return np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x, mask


def to_host(tree: Any) -> Any:
    """Fetches global arrays, however sharded, as numpy arrays on every process."""

    def fetch(x: jax.Array) -> np.ndarray:
        if not x.is_fully_addressable and not x.is_fully_replicated:
            assert isinstance(x.sharding, NamedSharding)
            whole = NamedSharding(x.sharding.mesh, REPLICATED)
            x = jax.jit(lambda y: y, out_shardings=whole)(x)
        return np.asarray(x.addressable_data(0) if x.is_fully_replicated else x)

    return jax.tree.map(fetch, tree)


def is_main() -> bool:
    """Whether this is process 0, the only one that writes files and the log."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def agree(flag: bool) -> bool:
    """Returns process 0's flag on every process (for decisions taken on a clock)."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(jnp.asarray(flag)))


def initialize(*, coordinator: str, processes: int, process_id: int, detect: bool) -> None:
    """Joins the processes of a pod and turns on the compilation cache.

    Must come before anything touches a device. A failure to join stops the run: a swallowed one
    would train as many lone hosts.

    Raises:
      UserError: half a set of arguments, or the other processes cannot be reached.
    """
    if processes > 1 and not coordinator:
        raise UserError(f"--processes={processes} needs --coordinator=HOST:PORT of process 0")
    if not 0 <= process_id < processes:
        raise UserError(f"--process_id={process_id} is not one of 0 to {processes - 1}")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # which JAX has read
        # A cache is trusted code: private to the user, and to the kind of machine by JAX's keys.
        folder = cache_folder() / "xla"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
    try:
        if coordinator:
            jax.distributed.initialize(coordinator, processes, process_id)
        elif detect:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot join the other processes ({reason}); check --coordinator"
        ) from error


def cache_folder() -> Path:
    """Where decoded images and compiled programs are kept: $UCJAX_CACHE or ~/.cache/ucjax."""
    return Path(os.environ.get("UCJAX_CACHE") or Path.home() / ".cache" / "ucjax")
