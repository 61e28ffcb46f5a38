"""What a surrogate sees in a set of images: one feature vector an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.runtime import parallel
from ucjax.runtime.progress import Progress
from ucjax.surrogates.base import Surrogate


def features(
    surrogate: Surrogate,
    image_set: ImageSet,
    *,
    size: int,
    mesh: Mesh,
    batch_size: int,
    progress: Callable[[str, int], Progress] = Progress,
) -> np.ndarray:
    """Embeds the centre crops of all images, on all devices: float32 `[n, d]`.

    Every process gets all rows, and they do not depend on the devices or on `batch_size` beyond
    rounding.

    Args:
      surrogate: `[b, size, size, 3]` in [0, 1] to `[b, d]`.
      image_set: n images.
      size: side of the crops in pixels.
      mesh: the devices to share each batch.
      batch_size: images a step on all devices together; rounded up to a multiple of them.
      progress: receives ("features", n), returns what is updated.

    Raises:
      UserError: no images, crops larger than the images, or a feature that is not finite.
    """
    if not len(image_set):
        raise UserError("there are no images to embed: the source is empty")
    if size > image_set.short_side:
        raise UserError(
            f"the crop of {size} px is larger than the images' short side of "
            f"{image_set.short_side} px: lower the crop or raise the short side"
        )
    bar = progress("features", len(image_set))
    batches: list[np.ndarray] = []
    done = 0
    for batch in _embed(surrogate, image_set, size, mesh, batch_size):
        rows = parallel.to_host(batch)[: len(image_set) - done]
        _check_finite(rows, image_set.names[done:], surrogate)
        batches.append(rows)
        done += len(rows)
        bar.update(done)
    bar.close(done)
    return np.concatenate(batches)


def _embed(
    surrogate: Surrogate, image_set: ImageSet, size: int, mesh: Mesh, batch_size: int
) -> Iterator[jax.Array]:
    """Features `[b, d]` batch by batch; the last one is padded with its last image."""
    step = make_step(surrogate, mesh)
    params = parallel.replicate(surrogate.params, mesh)
    sharded = NamedSharding(mesh, parallel.SHARDED)
    whole = step_size(len(image_set), batch_size, mesh)
    earlier = None
    for start in range(0, len(image_set), whole):
        chosen = np.minimum(np.arange(start, start + whole), len(image_set) - 1)

        def crops(part: Any, chosen: np.ndarray = chosen) -> np.ndarray:
            return image_set.center_crops(size, chosen[part[0]].tolist())

        images = jax.make_array_from_callback((whole, size, size, 3), sharded, crops)
        current = step(params, images)
        # One batch behind, so that the next crops are cut while the devices are busy.
        if earlier is not None:
            yield earlier
        earlier = current
    if earlier is not None:
        yield earlier


def make_step(surrogate: Surrogate, mesh: Mesh) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns `step(params, crops u8 [b, s, s, 3]) -> features [b, d]`, crops over the devices."""

    def embed(params: Any, crops: jax.Array) -> jax.Array:
        return surrogate.embed(params, crops.astype(jnp.float32) / 255)

    return parallel.pmap(
        embed,
        mesh=mesh,
        in_specs=(parallel.REPLICATED, parallel.SHARDED),
        out_specs=parallel.SHARDED,
    )


def step_size(count: int, batch_size: int, mesh: Mesh) -> int:
    """Returns how many of `count` images a step takes: whole numbers on each device."""
    return -(-min(batch_size, count) // mesh.size) * mesh.size


def _check_finite(rows: np.ndarray, names: tuple[str, ...], surrogate: Surrogate) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise UserError(
            f"the feature of {names[bad[0]]} is not finite (and of {len(bad)} of the "
            f"{len(rows)} images in its batch): the weights of {surrogate.id} are damaged"
        )
