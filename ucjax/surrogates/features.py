"""What a surrogate sees in a set of images: a feature vector or a class for each."""

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
    step = make_step(surrogate, mesh)
    bar = progress("features", len(image_set))
    return _collect(step, surrogate, image_set, size, mesh, batch_size, bar)


def predictions(
    surrogate: Surrogate,
    image_set: ImageSet,
    *,
    size: int,
    mesh: Mesh,
    batch_size: int,
    progress: Callable[[str, int], Progress] = Progress,
) -> np.ndarray:
    """Classifies the centre crops of all images by the surrogate's own head: int32 `[n]`.

    Arguments are those of `features`; ties go to the first class.

    Raises:
      UserError: as `features`, or a surrogate without a classifier.
    """
    logits = surrogate.logits
    if logits is None:
        raise UserError(
            f"surrogate {surrogate.id} has no ImageNet classifier, so it gives no labels: choose "
            "rn50 or efficientnet_lite0"
        )

    def classify(params: Any, images: jax.Array) -> jax.Array:
        values = logits(params, images)
        finite = jnp.isfinite(values).all(axis=1)
        return jnp.where(finite, values.argmax(axis=1).astype(jnp.int32), _NOT_FINITE)

    step = _on_crops(classify, mesh)
    bar = progress("predictions", len(image_set))
    return _collect(step, surrogate, image_set, size, mesh, batch_size, bar)


_Step = Callable[[Any, jax.Array], jax.Array]
_NOT_FINITE = -1  # in place of a class


def _collect(
    step: _Step,
    surrogate: Surrogate,
    image_set: ImageSet,
    size: int,
    mesh: Mesh,
    batch_size: int,
    bar: Progress,
) -> np.ndarray:
    """Returns what `step` gives for the centre crop of each image, `[n, ...]`."""
    if not len(image_set):
        raise UserError("there are no images to embed: the source is empty")
    if size > image_set.short_side:
        raise UserError(
            f"the crop of {size} px is larger than the images' short side of "
            f"{image_set.short_side} px: lower the crop or raise the short side"
        )
    batches: list[np.ndarray] = []
    done = 0
    for batch in _batches(step, surrogate, image_set, size, mesh, batch_size):
        rows = parallel.to_host(batch)[: len(image_set) - done]
        _check_finite(rows, image_set.names[done:], surrogate)
        batches.append(rows)
        done += len(rows)
        bar.update(done)
    bar.close(done)
    return np.concatenate(batches)


def _batches(
    step: _Step, surrogate: Surrogate, image_set: ImageSet, size: int, mesh: Mesh, batch_size: int
) -> Iterator[jax.Array]:
    """Results `[b, ...]` batch by batch; the last one is padded with its last image."""
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


def make_step(surrogate: Surrogate, mesh: Mesh) -> _Step:
    """Returns `step(params, crops u8 [b, s, s, 3]) -> features [b, d]`, crops over the devices."""
    return _on_crops(surrogate.embed, mesh)


def _on_crops(function: _Step, mesh: Mesh) -> _Step:
    def on_crops(params: Any, crops: jax.Array) -> jax.Array:
        return function(params, crops.astype(jnp.float32) / 255)

    return parallel.pmap(
        on_crops,
        mesh=mesh,
        in_specs=(parallel.REPLICATED, parallel.SHARDED),
        out_specs=parallel.SHARDED,
    )


def step_size(count: int, batch_size: int, mesh: Mesh) -> int:
    """Returns how many of `count` images a step takes: whole numbers on each device."""
    return -(-min(batch_size, count) // mesh.size) * mesh.size


def _check_finite(rows: np.ndarray, names: tuple[str, ...], surrogate: Surrogate) -> None:
    found = rows != _NOT_FINITE if rows.ndim == 1 else np.isfinite(rows).all(axis=1)
    bad = np.flatnonzero(~found)
    if len(bad):
        raise UserError(
            f"the feature of {names[bad[0]]} is not finite (and of {len(bad)} of the "
            f"{len(rows)} images in its batch): the weights of {surrogate.id} are damaged"
        )
