"""What files cost: a few of them go through the pipeline's own stages, in a temporary folder."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ucjax import arms, stages
from ucjax.clusters.kmeans import Clusters
from ucjax.data import folder, images, textures, tfds
from ucjax.data.images import Item, Listing
from ucjax.data.sources import Splits
from ucjax.errors import UserError
from ucjax.files import protect as protection
from ucjax.job import Job, cache_folder
from ucjax.surrogates import Surrogate

T = TypeVar("T")


@dataclass(frozen=True)
class FileCost:
    """Means over a sample of `files` images: seconds and bytes an image, on all threads.

    The files carry random noise of the whole budget, which a lossless format compresses least.
    """

    files: int
    decode_seconds: float
    write_seconds: float
    check_seconds: float
    reread_seconds: float
    source_bytes: float  # 0 if the images are no files of a folder
    written_bytes: float
    cache_bytes: float


def listing(job: Job) -> Listing | None:
    """Lists the images of a run without decoding them; None if they are not on this machine.

    Raises:
      UserError: the folder does not exist, or holds no picture.
    """
    data, seed = job.config.data, job.config.seed
    if data.source == "folder":
        place = Path(data.root).expanduser()
        return folder.listing(place, test_fraction=data.test_fraction, seed=seed)
    if data.source == "textures":
        train, test = (
            textures.items(split, count, data.short_side, seed)
            for split, count in (("train", data.train_count), ("test", data.test_count))
        )
        return Listing(train, test, textures.FAMILIES)
    if tfds.is_prepared(data.name, data.root):
        return tfds.listing(data.name, data.root, cache_dir=cache_folder(job))
    return None


def photos(root: Path) -> Listing:
    """Lists all pictures of a folder, which is what `ucjax protect` protects.

    Raises:
      UserError: there are none.
    """
    names = folder.walk(root)
    if not names:
        raise UserError(f"no pictures under {root}: give the folder that holds your photos")
    labels, class_names = folder.labels(names)
    items = [images.file_item(root / x, x, label) for x, label in zip(names, labels, strict=True)]
    return Listing(items, [], class_names, root)


def measure(job: Job, listed: Listing, surrogate: Surrogate, *, files: int) -> FileCost | None:
    """Sends about `files` images, spread evenly over those to protect, through the stages.

    Returns None if none of them can be read.
    """
    chosen = np.unique(np.linspace(0, len(listed.train) - 1, files).astype(int))
    items = [listed.train[index] for index in chosen]
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        config = copy.deepcopy(job.config)
        config.data.cache = f"{temporary}/cache"
        trial = dataclasses.replace(job, config=config, folder=Path(temporary) / "run")
        return _through_the_stages(trial, items, listed, surrogate)


def _through_the_stages(
    job: Job, items: list[Item], listed: Listing, surrogate: Surrogate
) -> FileCost | None:
    k, crop = job.config.clusters.k, job.config.data.crop
    decoded, decode_seconds = _timed(
        lambda: images.build(
            items,
            short_side=job.config.data.short_side,
            cache_dir=cache_folder(job),
            label="sample",
            class_names=listed.class_names,
        )
    )
    n = len(decoded)
    if not n:
        return None
    splits = Splits(decoded, decoded, listed.root)
    clusters = Clusters(np.zeros((k, 1), np.float32), np.zeros(n, np.int32), 0.0, 0)
    blank = np.zeros((k, crop, crop, 3), np.float32)
    published = stages.make_protector(blank, clusters, surrogate, job)
    written, write_seconds = _timed(lambda: arms.write("random", splits, clusters, published, job))
    _, check_seconds = _timed(lambda: arms.prove(written, splits, published, job))
    _, reread_seconds = _timed(lambda: arms.decode_for_surrogate("random", written, job))
    outputs = [item.name for item in protection.items_of(written.folder)]
    sources = [] if listed.root is None else [listed.root / name for name in decoded.names]
    return FileCost(
        files=n,
        decode_seconds=decode_seconds / len(items),
        write_seconds=write_seconds / n,
        check_seconds=check_seconds / n,
        reread_seconds=reread_seconds / n,
        source_bytes=sum(path.stat().st_size for path in sources) / n,
        written_bytes=sum(map(_size, (written.folder / "images" / name for name in outputs))) / n,
        cache_bytes=decoded.rows.nbytes / n,
    )


def _size(path: Path) -> int:
    return path.stat().st_size


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    value = work()
    return value, time.perf_counter() - start
