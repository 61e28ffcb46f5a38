"""Crops for a step: cut on the devices that hold the images, or streamed from the memory map.

Where a crop lies is drawn on the host from (seed, step) for the whole batch. It therefore does not
depend on the number of devices, both ways give the same bytes, and a resumed run needs no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding

from ucjax import parallel
from ucjax.data.images import ImageSet


class Feed:
    """Gives square uint8 crops `[b, size, size, 3]`, sharded over the mesh.

    Images are held by the devices (`resident`) if they fit into `budget_bytes` of each. Every
    device then holds all of them: a shuffled batch takes images from anywhere, and which images
    form a batch must not depend on the number of devices. The default budget is a quarter of an
    accelerator's memory, and 0 on CPUs, whose devices share the memory that the map is cached in.
    """

    def __init__(self, images: ImageSet, size: int, *, mesh: Mesh, budget_bytes: int | None = None):
        """Prepares crops of `size` pixels, at most the images' short side."""
        if size > images.short_side:
            raise ValueError(f"size (={size}) is larger than the short side ({images.short_side})")
        self._images, self._size, self._mesh = images, size, mesh
        budget = default_budget(mesh) if budget_bytes is None else budget_bytes
        self.resident = images.rows.nbytes <= budget
        if self.resident:
            self._rows = parallel.replicate(images.rows, mesh)
            self._cut = parallel.pmap(
                jax.vmap(self._cut_one, in_axes=(None, 0, 0, 0)),
                mesh=mesh,
                in_specs=(parallel.REPLICATED, *3 * (parallel.SHARDED,)),
                out_specs=parallel.SHARDED,
            )

    def random_crops(self, indices: np.ndarray, seed: int, step: int) -> jax.Array:
        """Cuts images `[b]` at positions uniform over the image, as torchvision's RandomCrop.

        b must be a multiple of the number of devices: see `parallel.pad`.
        """
        rng = np.random.default_rng((seed, step))
        return self._crops(indices, rng.random((2, len(indices))))

    def center_crops(self, indices: np.ndarray) -> jax.Array:
        """Cuts the centres of images `[b]`, as torchvision's CenterCrop."""
        return self._crops(indices, None)

    def prefetch(self, plan: Iterable[tuple[np.ndarray, int, int]]) -> Iterator[jax.Array]:
        """Yields `random_crops` of each (indices, seed, step), cutting one batch ahead."""
        with ThreadPoolExecutor(1) as worker:
            ahead = None
            for request in plan:
                following = worker.submit(self.random_crops, *request)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
            if ahead is not None:
                yield ahead.result()

    def _crops(self, indices: np.ndarray, position: np.ndarray | None) -> jax.Array:
        """Cuts at `position` `[2, b]` in [0, 1) of the free play along the long and short side."""
        images, size = self._images, self._size
        starts = images.starts[indices]
        free = np.stack(
            [images.starts[indices + 1] - starts, np.full_like(starts, images.short_side)]
        )
        free -= size
        if position is None:
            # Python's rounding, half to even, is torchvision's.
            offset = np.rint(free / 2).astype(np.int64)
        else:
            offset = (position * (free + 1)).astype(np.int64)
        place = (starts + offset[0]).astype(np.int32), offset[1].astype(np.int32)
        wide = images.wide[indices]
        if self.resident:
            return self._cut(self._rows, *parallel.shard((*place, wide), self._mesh))

        def cut(index: tuple[slice, ...]) -> np.ndarray:
            rows, columns, turned = place[0][index[0]], place[1][index[0]], wide[index[0]]
            crops = np.empty((len(rows), size, size, 3), np.uint8)
            for crop, row, column, turn in zip(crops, rows, columns, turned, strict=True):
                part = images.rows[row : row + size, column : column + size]
                crop[:] = part.swapaxes(0, 1) if turn else part
            return crops

        sharding = NamedSharding(self._mesh, parallel.SHARDED)
        shape = (len(indices), size, size, 3)
        return jax.make_array_from_callback(shape, sharding, cut)

    def _cut_one(
        self, rows: jax.Array, row: jax.Array, column: jax.Array, wide: jax.Array
    ) -> jax.Array:
        part = lax.dynamic_slice(rows, (row, column, 0), (self._size, self._size, 3))
        return jnp.where(wide, part.swapaxes(0, 1), part)


def default_budget(mesh: Mesh) -> int:
    """Returns the bytes of images that each device may hold."""
    device = mesh.local_devices[0]
    if device.platform == "cpu":
        return 0
    return (device.memory_stats() or {}).get("bytes_limit", 0) // 4
