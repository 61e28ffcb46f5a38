"""Batches of crops for the devices, from rows that live there or from the memory map.

The bytes of a batch are the same either way, and on any number of devices and processes.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding

from ucjax.data import augment
from ucjax.data.images import ImageSet
from ucjax.runtime import parallel

# Tells the keys of crops from `fold_in(key(seed), step)`, which is left to the step itself.
_CROPS = 0x43524F50


class _Crops(NamedTuple):
    """Where crops begin; numpy on the host, jax on the devices."""

    row: np.ndarray | jax.Array  # int [b], counted over all images' long sides
    column: np.ndarray | jax.Array  # int [b], along the short side
    wide: np.ndarray | jax.Array  # bool [b], stored transposed: to be swapped back


class Feed:
    """Square uint8 crops of an `ImageSet` for a step, sharded over the devices.

    *Resident*: every device holds a copy of all rows, and a batch costs the host a few numbers.
    Copies rather than shards, because a shuffled batch takes its images from anywhere: from
    shards, a device could only take its own images (then the composition of a batch would depend
    on the number of devices) or the others' through an all-to-all in every step. (CPU devices
    share one copy, the memory map itself.) *Streamed*: for collections too large for that, the
    host cuts the crops out of the memory map; a process cuts only those of its own devices.

    Attributes:
      resident: whether the rows are on the devices.
    """

    def __init__(self, images: ImageSet, size: int, *, mesh: Mesh, budget_bytes: int | None = None):
        """Places the rows on the devices if they fit.

        Args:
          images: the collection.
          size: side of the crops in pixels.
          mesh: all devices.
          budget_bytes: what the rows may take of each device's memory. None: a quarter of it, or
            for CPU devices of the host's, shared among them.

        Raises:
          ValueError: `size` is larger than the short side.
        """
        if size > images.short_side:
            raise ValueError(f"size (={size}) is larger than the short side (={images.short_side})")
        self._images, self._size, self._mesh = images, size, mesh
        budget = _quarter_of_memory(mesh) if budget_bytes is None else budget_bytes
        # Processes must take the same path: one of the two is a program that runs on all of them.
        self.resident = parallel.agree(images.rows.nbytes <= budget)
        if self.resident:
            # TPUs pad the last axis to 128 numbers, so three channels may not be an axis.
            self._rows = parallel.replicate(images.rows.reshape(len(images.rows), -1), mesh)

    def random_crops(self, indices: np.ndarray, seed: int, step: int) -> jax.Array:
        """Returns random crops of the images `indices` `[b]`: uint8 `[b, size, size, 3]`.

        Offsets are uniform as in torchvision's RandomCrop and depend on the seed, the step and
        the position in the batch alone. Images are not flipped: see `augment.random_flip`.

        Raises:
          ValueError: b is no multiple of the number of devices.
        """
        origin, lengths = self._find(indices)
        numbers = np.uint32(seed), np.uint32(step)
        if self.resident:
            program = _random_program(self._mesh, self._size)
            seed_and_step = parallel.replicate(numbers, self._mesh)
            return program(
                self._rows, *parallel.shard((origin, lengths), self._mesh), seed_and_step
            )
        drawn = _draw(
            *jax.device_put((numbers, lengths), _host_device()),
            short_side=self._images.short_side, size=self._size,
        )  # fmt: skip
        row, column = jax.device_get(drawn)
        return self._stream(_Crops(origin.row + row, column, origin.wide))

    def center_crops(self, indices: np.ndarray) -> jax.Array:
        """Returns the centre crops of the images `indices` `[b]`: uint8 `[b, size, size, 3]`.

        Raises:
          ValueError: b is no multiple of the number of devices.
        """
        origin, lengths = self._find(indices)
        # numpy rounds halves to even, as does Python in torchvision's CenterCrop.
        row = np.rint((lengths - self._size) / 2).astype(np.int32)
        column = np.full_like(row, round((self._images.short_side - self._size) / 2))
        crops = _Crops(origin.row + row, column, origin.wide)
        if self.resident:
            program = _crop_program(self._mesh, self._size)
            return program(self._rows, parallel.shard(crops, self._mesh))
        return self._stream(crops)

    def prefetch(self, requests: Iterable[tuple[np.ndarray, int, int]]) -> Iterator[jax.Array]:
        """Yields `random_crops(indices, seed, step)` of each request, in their order.

        While a streamed batch is in use, a thread loads the next.
        """
        if self.resident:
            yield from (self.random_crops(*request) for request in requests)
            return
        with ThreadPoolExecutor(max_workers=1) as loader:
            current: Future[jax.Array] | None = None
            for request in requests:
                following = loader.submit(self.random_crops, *request)
                if current is not None:
                    yield current.result()
                current = following
            if current is not None:
                yield current.result()

    def _find(self, indices: np.ndarray) -> tuple[_Crops, np.ndarray]:
        """Returns the images' first pixels and long sides, int32 `[b]`."""
        if len(indices) % self._mesh.size:
            raise ValueError(
                f"a batch of {len(indices)} images cannot be shared equally by {self._mesh.size} "
                "devices: see parallel.pad"
            )
        starts = self._images.starts
        # Rows, not pixels or bytes, are counted: 2^31 of them are more than 400 GB of images.
        first = starts[:-1][indices].astype(np.int32)
        lengths = (starts[1:][indices] - starts[:-1][indices]).astype(np.int32)
        return _Crops(first, np.zeros_like(first), self._images.wide[indices]), lengths

    def _stream(self, crops: _Crops) -> jax.Array:
        def cut(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            return _cut(self._images.rows, _Crops(*(x[index[0]] for x in crops)), self._size)

        shape = (len(crops.row), self._size, self._size, 3)
        sharding = NamedSharding(self._mesh, parallel.SHARDED)
        return jax.make_array_from_callback(shape, sharding, cut)


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """Returns a permutation of `count` images, wrapped around to full batches: `[steps, b]`."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    steps = math.ceil(count / batch_size)
    return np.resize(order, (steps, batch_size))


def _quarter_of_memory(mesh: Mesh) -> int:
    statistics = mesh.local_devices[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        return statistics["bytes_limit"] // 4
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return host // 4 // len(mesh.local_devices)


def _host_device() -> jax.Device:
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS names accelerators only
        return jax.local_devices()[0]


def _cut(rows: np.ndarray, crops: _Crops, size: int) -> np.ndarray:
    """Copies crops out of `rows` `[n, short_side, 3]` on the host: `[b, size, size, 3]`."""
    result = np.empty((len(crops.row), size, size, 3), np.uint8)
    # Pixels as items of three bytes: numpy transposes those almost twice as fast.
    source, target = rows.view("V3")[..., 0], result.view("V3")[..., 0]
    for square, row, column, wide in zip(target, *crops, strict=True):
        stored = source[row : row + size, column : column + size]
        square[:] = stored.T if wide else stored
    return result


@functools.partial(jax.jit, static_argnames=("short_side", "size"))
def _draw(
    seed_and_step: tuple[jax.Array, jax.Array], lengths: jax.Array, *, short_side: int, size: int
) -> tuple[jax.Array, jax.Array]:
    """Draws crop offsets, int32 `[b]` along the long and the short side."""
    seed, step = seed_and_step
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _CROPS), step)
    return augment.random_crop_offsets(key, lengths, short_side, size)


# The programs are shared by all feeds of a mesh, so that a new feed does not compile them again.
@functools.cache
def _crop_program(mesh: Mesh, size: int) -> Callable[[jax.Array, _Crops], jax.Array]:
    """Cuts crops out of rows `[n, short_side * 3]` on the devices: `[b, size, size, 3]`."""

    def crop_all(rows: jax.Array, crops: _Crops) -> jax.Array:
        def one(crop: _Crops) -> jax.Array:
            stored = lax.dynamic_slice(rows, (crop.row, 3 * crop.column), (size, 3 * size))
            square = stored.reshape(size, size, 3)
            return jnp.where(crop.wide, square.swapaxes(0, 1), square)

        return jax.vmap(one)(crops)

    return parallel.pmap(
        crop_all, mesh=mesh, in_specs=(parallel.REPLICATED, parallel.SHARDED),
        out_specs=parallel.SHARDED,
    )  # fmt: skip


@functools.cache
def _random_program(mesh: Mesh, size: int) -> Callable[..., jax.Array]:
    """Draws offsets and cuts the crops, in one program."""
    crop = _crop_program(mesh, size)

    @jax.jit
    def program(
        rows: jax.Array,
        origin: _Crops,
        lengths: jax.Array,
        seed_and_step: tuple[jax.Array, jax.Array],
    ) -> jax.Array:
        short_side = rows.shape[1] // 3
        row, column = _draw(seed_and_step, lengths, short_side=short_side, size=size)
        return crop(rows, _Crops(origin.row + row, column, origin.wide))

    return program
