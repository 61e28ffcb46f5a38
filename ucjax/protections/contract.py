"""What a protection is given, and what an entry of the table says of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax.clusters.kmeans import Clusters
from ucjax.data.images import ImageSet
from ucjax.protections.noise import Noise
from ucjax.runtime.progress import MetricsFile, Progress
from ucjax.surrogates import Surrogate


@dataclass(frozen=True)
class Given:
    """What a protection is given.

    Attributes:
      images: n images, decoded to `config.data.short_side`; labels only for those baselines that
        the paper gives them to.
      config: the shared settings, those of the row set.
      options: the row's own settings, of the types of `Protection.options`.
      seed: of everything drawn.
      clusters: the images' clusters in the surrogate's features, when called.
      surrogate: the frozen network, when called.
      folder: for what training must not lose; the next call finds it as it was.
      mesh: the devices.
      metrics: takes a line an epoch.
      progress: makes progress lines.
      budget_bytes: what images may take of each device's memory, None for automatic.
    """

    images: ImageSet
    config: ConfigDict
    options: Mapping[str, Any]
    seed: int
    clusters: Callable[[], Clusters]
    surrogate: Callable[[], Surrogate]
    folder: Path
    mesh: Mesh
    metrics: MetricsFile
    progress: Callable[..., Progress] = Progress
    budget_bytes: int | None = None


@dataclass(frozen=True)
class Protection:
    """One entry of the table.

    Attributes:
      sentence: what it is, for `ucjax compare --help` and the report.
      fit: makes the noise; called again after a kill, it goes on, and when done it costs nothing.
        None for rows that are files already.
      shared: those keys of `table.SHARED` that change it.
      options: its own keys, with their defaults.
      drawn: whether a noise seed changes it.
      value: what a value is for which names look like "folder=PATH"; "" where there is none.
    """

    sentence: str
    fit: Callable[[Given], Noise] | None
    shared: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    drawn: bool = True
    value: str = ""
