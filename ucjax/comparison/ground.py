"""What all rows of a comparison share: the images, the surrogates, the clusters, the place.

Everything here is computed by all processes and written by process 0, atomically; what a run's
folder already holds is read.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax import config as settings
from ucjax import surrogates
from ucjax.clusters import kmeans
from ucjax.clusters.kmeans import Clusters
from ucjax.data import images, sources
from ucjax.data.images import ImageSet, Item
from ucjax.data.sources import Splits
from ucjax.errors import UserError
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.progress import MetricsFile, Progress, say
from ucjax.surrogates import Surrogate
from ucjax.surrogates.features import features

# Characters of a row's label in the name of a file, which may hold 255 bytes.
LONGEST = 50
# Images a cluster, on average, below which a line says that they are few.
_FEWEST = 20
T = TypeVar("T")


@dataclass(frozen=True)
class Known:
    """Clusters that are given with the images, by their names, instead of found."""

    centers: np.ndarray  # float32 [p, d]
    cluster_of: dict[str, int]


@dataclass(frozen=True)
class Ground:
    """What every row and every cell is given.

    Attributes:
      config: the experiment.
      folder: of the run.
      mesh: the devices.
      metrics: takes a line an epoch.
      splits: the images to protect and the clean test images, at `config.data.short_side`.
      known: clusters that are given.
      progress: makes progress lines.
    """

    config: ConfigDict
    folder: Path
    mesh: Mesh
    metrics: MetricsFile
    splits: Splits
    known: Known | None = None
    progress: Callable[..., Progress] = Progress
    _loaded: dict[tuple[str, ...], Surrogate] = field(default_factory=dict)
    _clusters: dict[str, Clusters] = field(default_factory=dict)

    @property
    def native(self) -> bool:
        """Whether files are written at the pictures' own size."""
        return self.config.files.geometry == "native"

    @functools.cached_property
    def images_sha256(self) -> str:
        """Changes with the images to protect."""
        return fingerprint(self.splits.train).hexdigest()

    @property
    def budget_bytes(self) -> int | None:
        """What images may take of each device's memory, None for automatic."""
        return self.config.feed_budget_mb * 2**20 or None

    def surrogate(self, config: ConfigDict) -> Surrogate:
        """Loads the surrogate that the settings name, once."""
        spec, size = config.surrogate, config.data.crop
        key = (spec.name, spec.path, str(size), spec.precision)
        if key not in self._loaded:
            self._loaded[key] = surrogates.load(
                spec.name, path=spec.path, image_size=size, precision=spec.precision
            )
            say(f"surrogate: {self._loaded[key].id} at {size} px")
        return self._loaded[key]

    def embed(self, image_set: ImageSet, config: ConfigDict, path: Path) -> np.ndarray:
        """Returns the features `[n, d]` of the images' centre crops, kept in `path`."""
        digest = np.frombuffer(fingerprint(image_set).digest(), np.uint8)
        if parallel.agree(path.exists()):
            saved = checkpoint.load_arrays(path)
            if np.array_equal(saved["images"], digest):
                return saved["features"]
        rows = features(
            self.surrogate(config),
            image_set,
            size=config.data.crop,
            mesh=self.mesh,
            batch_size=config.surrogate.batch_size,
            progress=self.progress,
        )
        if parallel.is_main():
            checkpoint.save_tree(path, {"features": rows, "images": digest})
        parallel.barrier("features")
        return rows

    def features(self, config: ConfigDict) -> np.ndarray:
        """Returns the features of the images to protect."""
        path = self.folder / "features" / f"{named(config)}.safetensors"
        return self.embed(self.splits.train, config, path)

    def clusters(self, config: ConfigDict, seed: int) -> Clusters:
        """Clusters the images to protect in the features of the surrogate (arXiv:2301.01217)."""
        if self.known is not None:
            given = [self.known.cluster_of[name] for name in self.splits.train.names]
            return Clusters(self.known.centers, np.array(given, np.int32), 0.0, 0)
        name = f"{named(config)}-k{config.clusters.k}-seed{seed}"
        if name not in self._clusters:
            self._clusters[name] = self._find_clusters(config, seed, name)
        return self._clusters[name]

    def _find_clusters(self, config: ConfigDict, seed: int, name: str) -> Clusters:
        spec = config.clusters
        path = self.folder / "clusters" / f"{name}.safetensors"
        rows = self.features(config)
        question = np.frombuffer(hashlib.sha256(rows.tobytes()).digest(), np.uint8)
        if not (parallel.agree(path.exists()) and _answers(path, question)):
            found = kmeans.fit(
                rows,
                spec.k,
                seed=seed,
                mesh=self.mesh,
                n_init=spec.n_init,
                max_iterations=spec.max_iterations,
                tolerance=spec.tolerance,
            )
            if parallel.is_main():
                arrays = {k: np.asarray(v) for k, v in asdict(found).items()}
                checkpoint.save_tree(path, {**arrays, "features": question})
            parallel.barrier("clusters")
        saved = checkpoint.load_arrays(path)
        clusters = Clusters(
            saved["centers"],
            saved["assignment"],
            float(saved["inertia"]),
            int(saved["iterations"]),
        )
        sizes = np.bincount(clusters.assignment, minlength=spec.k)
        purity = purity_of(clusters, self.splits.train)
        say(
            f"clusters {name}: {spec.k} of {sizes.min()} to {sizes.max()} images"
            + ("" if purity is None else f", purity {purity:.2f}")
            + _few(len(rows), spec.k)
        )
        return clusters

    def decode(
        self, label: str, items: Sequence[Item], short_side: int, class_names: tuple[str, ...] = ()
    ) -> ImageSet:
        """Decodes pictures, as whoever downloads them would.

        Raises:
          UserError: one of them cannot be read.
        """
        found = in_turn(
            lambda: images.build(
                items,
                short_side=short_side,
                cache_dir=cache_folder(self.config),
                label=label[-LONGEST:],
                class_names=class_names,
                say=say,
                progress=self.progress,
            )
        )
        if len(found) != len(items):
            raise UserError(
                f"{label}: {len(items) - len(found)} of {len(items)} files cannot be read: "
                "all rows must hold the same pictures; restore them and run again"
            )
        return found


def load_splits(
    config: ConfigDict,
    short_side: int,
    progress: Callable[..., Progress] = Progress,
    keep: Callable[[str], bool] = lambda name: True,
) -> Splits:
    """Decodes the images to protect and the clean test images, once, into the cache."""
    data = config.data
    return in_turn(
        lambda: sources.load(
            source=data.source,
            name=data.name,
            root=data.root,
            short_side=short_side,
            test_fraction=data.test_fraction,
            seed=config.seed,
            cache_dir=cache_folder(config),
            train_count=data.train_count,
            test_count=data.test_count,
            split_unlabelled=data.split_unlabelled,
            keep=keep,
            say=say,
            progress=progress,
        )
    )


def _few(images_: int, k: int) -> str:
    """Says if clusters are so small that one noise each has little to be learnt from, or on."""
    fewer = max(2, images_ // _FEWEST)
    if images_ >= _FEWEST * k or fewer >= k:
        return ""
    return f"; few images for a noise of their own: k={fewer} makes them larger"


def purity_of(clusters: Clusters, images_: ImageSet) -> float | None:
    """Returns the clusters' purity against the labels, if there are any."""
    if (images_.labels < 0).any():
        return None
    return kmeans.purity(clusters.assignment, images_.labels)


def fingerprint(image_set: ImageSet) -> hashlib._Hash:
    """Returns the SHA-256 of the pixels, shapes, labels and class names of images in order."""
    digest = hashlib.sha256()
    for array in (image_set.rows, image_set.starts, image_set.wide, image_set.labels):
        digest.update(np.ascontiguousarray(array).data)
    digest.update(json.dumps(image_set.class_names).encode())
    return digest


def in_turn(make: Callable[[], T]) -> T:
    """Lets process 0 build a cache before the others, on a shared disk, only open it."""
    if parallel.is_main():
        value = make()
        parallel.barrier("built")
        return value
    parallel.barrier("built")
    return make()


def cache_folder(config: ConfigDict) -> Path:
    """The folder of decoded images."""
    return Path(config.data.cache or parallel.cache_folder() / "images")


def named(config: ConfigDict) -> str:
    """Returns a surrogate's name for files, with a mark of what is not its default."""
    name, path, precision = (config.surrogate[key] for key in ("name", "path", "precision"))
    computed = name if precision == "auto" else f"{name}-{precision}"
    if path in ("", settings.SURROGATES.get(name)):
        return computed
    return f"{computed}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def _answers(path: Path, question: np.ndarray) -> bool:
    return np.array_equal(checkpoint.load_arrays(path)["features"], question)
