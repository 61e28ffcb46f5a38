"""What an owner of photos asks for: learn a protector from them, and write protected copies."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ucjax import config as defaults
from ucjax import names as named
from ucjax import surrogates
from ucjax.comparison import rows, run
from ucjax.comparison.ground import Ground
from ucjax.data import folder as folders
from ucjax.data import images
from ucjax.data.sources import Splits
from ucjax.errors import StaleError, UserError
from ucjax.files import claim, picture
from ucjax.files import manifest as protected
from ucjax.files.picture import Encoding
from ucjax.files.protect import ProtectedSet, protect_files
from ucjax.protections import protector
from ucjax.protections.noise import Noise
from ucjax.protections.protector import Protector
from ucjax.runtime import checkpoint, disk, parallel, workdir
from ucjax.runtime.progress import MetricsFile, Outlook

# "auto": see `Encoding.chosen`.
FORMATS = ("auto", *picture.FORMATS)
PROTECTOR, _TRAINING = "protector", ".training"
# Of the training, beside the protector.
SETTINGS = "settings.json"


class Protection(NamedTuple):
    """What was written with which protector, and what was not even found."""

    written: ProtectedSet
    protector: Protector
    place: Path  # of the protector
    unlisted: tuple[protected.Failure, ...]  # folders that cannot be searched
    converted: tuple[tuple[str, str], ...]  # names, and what 8-bit RGB could not hold of them
    seconds: float  # for the files alone


def protect_folder(
    photos: Path,
    out: Path,
    config: ConfigDict,
    *,
    published: Path | None = None,
    protection: str = defaults.OWNERS_ROW,
    format: str = "auto",
    opt_out: bool = False,
    keep: Sequence[str] = (),
    threads: int | None = None,
) -> Protection:
    """Writes a protected copy of every photo of a folder to `out/images`.

    The noise is that of the protector in `published`, else of the one in `out/protector`, which
    is learnt from these photos first. Killed, it goes on when called again; called again after
    photos were added, it protects those, and copies of photos that are gone leave `out`. Nothing
    that is not ours is replaced, and nobody else writes to `out` meanwhile.

    Args:
      photos: the originals; nothing in there is changed.
      out: for the copies.
      config: how the protector is learnt.
      published: a protector's folder, None to learn one.
      protection: the row of the table to learn, one noise per cluster.
      format: of the copies, one of `FORMATS`.
      opt_out: adds the machine-readable reservation against training.
      keep: metadata to keep beyond the list (`metadata.KEEPABLE`).
      threads: None for one a processor.

    Raises:
      UserError: bad input, in one line.
      DiskError: `out` cannot be written to; the same call goes on.
    """
    _check_places(photos, out)
    with disk.held(out):
        claim.claim(out, (PROTECTOR, _TRAINING))
        encoding = Encoding(named.known(format, FORMATS, "format"), opt_out)
        return _protect(photos, out, config, published, protection, encoding, keep, threads)


def _protect(
    photos: Path,
    out: Path,
    config: ConfigDict,
    published: Path | None,
    protection: str,
    encoding: Encoding,
    keep: Sequence[str],
    threads: int | None,
) -> Protection:
    unlisted: list[protected.Failure] = []
    names = folders.walk(
        photos, lambda error: unlisted.append((str(error.filename), error.strerror or str(error)))
    )
    if not names:
        types = " ".join(extension[1:] for extension in folders.EXTENSIONS)
        raise UserError(f"no pictures under {photos} (looked for {types})")
    labels, class_names = folders.labels(names)
    where = published or out / PROTECTOR
    outlook = _outlook(len(names), protection, config)
    config.protections = (protection,)
    if published is None:
        if (where / protector.DESCRIPTION).exists():
            _check_same(config, where, len(names))
        else:
            checkpoint.write_json(where / SETTINGS, _settings(config))
            _learn(photos, names, labels, class_names, config, out, outlook)
    chosen = protector.load(where)
    cluster_of = nearest_cluster(chosen, load_surrogate(chosen))
    start = time.monotonic()
    written = protect_files(
        photos,
        names,
        chosen,
        labels=labels,
        class_names=class_names,
        cluster_of=cluster_of,
        protector_sha256=hashlib.sha256((where / protector.DESCRIPTION).read_bytes()).hexdigest(),
        encoding=encoding.chosen(chosen.gratings is not None),
        keep=keep,
        unlisted=[_below(photos, folder) for folder, _ in unlisted],
        refused=_refuser(photos, out),
        folder=out,
        threads=threads,
        progress=outlook.progress,
    )
    shutil.rmtree(out / _TRAINING, ignore_errors=True)
    seconds = time.monotonic() - start
    return Protection(written, chosen, where, tuple(unlisted), converted(out), seconds)


def converted(out: Path) -> tuple[tuple[str, str], ...]:
    """Returns the names in a written folder, and what 8-bit RGB could not hold of them."""
    records = protected.read_manifest(out)
    return tuple((r["name"], r["converted"]) for r in records if "converted" in r)


def _outlook(count: int, protection: str, config: ConfigDict) -> Outlook:
    drawn = named.parse(protection, "row").base == "gratings"
    # In forward passes of the surrogate at 128 px, from a profile with EfficientNet-Lite0.
    features = (config.data.crop / 128) ** 2
    noise = 0.0 if drawn else 3.0 * features * config.noise.epochs
    each = {
        "decoding photos": 0.1,
        "features": features,
        "noise": noise,
        "protecting": 2.0 + features,
    }
    return Outlook({label: count * work for label, work in each.items()})


def _check_places(photos: Path, out: Path) -> None:
    if not photos.is_dir():
        raise UserError(f"{photos} is not a folder: give the folder of your photos")
    inner, outer = out.resolve(), photos.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise UserError(
            f"{out} and {photos} lie in each other: choose another place for the copies"
        )
    if (photos / protected.MANIFEST).exists() and (photos / protected.IMAGES).is_dir():
        raise UserError(f"{photos} holds protected files already: give the originals' folder")


def _settings(config: ConfigDict) -> dict[str, Any]:
    """Returns what decides a protector, as JSON would hold it, with dotted keys."""
    flat = workdir.flat(workdir.plain(config))
    parts = ("noise.", "clusters.", "surrogate.", "data.short_side", "data.crop")
    named = {key: value for key, value in flat.items() if key.startswith(parts)}
    return {**named, "noise_seeds": flat["noise_seeds"], "protections": flat["protections"]}


def _check_same(config: ConfigDict, where: Path, count: int) -> None:
    """Refuses to go on with a protector that was learnt with other settings.

    Raises:
      UserError: it was; names the setting, both values and the two ways on.
    """
    path = where / SETTINGS
    found, ours = checkpoint.read_json(path) if path.exists() else {}, _settings(config)
    usual = _settings(defaults.photos(count))
    for key, value in ours.items():
        # Defaults that follow from the number of photos, to which some were added.
        if key in ("noise.epochs", "clusters.k") and value == usual[key]:
            continue
        if key in found and found[key] != value:
            raise UserError(
                f"{where} was learnt with {key} = {found[key]!r}, now it is {value!r}: give the "
                "same settings as then, or use another OUT"
            )


def _learn(
    photos: Path,
    names: Sequence[str],
    labels: Sequence[int],
    class_names: tuple[str, ...],
    config: ConfigDict,
    out: Path,
    outlook: Outlook,
) -> None:
    """Trains a protector on the photos and publishes it in `out/protector`."""
    training = out / _TRAINING
    decoded = _decode(photos, names, labels, class_names, config, training, outlook)
    mesh = parallel.make_mesh()
    (row,) = run.check(config, mesh).rows
    metrics = MetricsFile(training / "metrics.jsonl")
    splits = Splits(decoded, decoded, photos)
    ground = Ground(config, training, mesh, metrics, splits, progress=outlook.progress)

    def learn() -> Noise:
        workdir.claim(training, config)
        return rows.fit(row, config.noise_seeds[0], ground, training / "noise")

    try:
        noise = learn()
    except StaleError:
        # Killed, and photos or settings changed since: nothing is published yet that would hold.
        (training / "config.json").unlink(missing_ok=True)
        shutil.rmtree(training / "noise", ignore_errors=True)
        noise = learn()
    made = rows.protector_of(row, noise, config.noise_seeds[0], ground)
    if made is None:
        raise UserError(
            f"{row} makes noise for these photos alone, and no protector: ucjax compare can "
            "measure it; protect with uc or gratings"
        )
    protector.save(made, out / PROTECTOR)


def _decode(
    photos: Path,
    names: Sequence[str],
    labels: Sequence[int],
    class_names: tuple[str, ...],
    config: ConfigDict,
    training: Path,
    outlook: Outlook,
) -> images.ImageSet:
    items = [
        images.file_item(photos / name, name, label)
        for name, label in zip(names, labels, strict=True)
    ]
    decoded = images.build(
        items,
        short_side=config.data.short_side,
        cache_dir=training / "cache",
        label="photos",
        class_names=class_names,
        say=lambda line: None,  # the files that fail are named when they are written
        progress=outlook.progress,
    )
    if len(decoded) < config.clusters.k:
        raise UserError(
            f"{len(decoded)} readable photos in {photos}, but {config.clusters.k} clusters: "
            "lower the clusters (--clusters), or use another protector (--protector)"
        )
    return decoded


def load_surrogate(published: Protector) -> surrogates.Surrogate:
    """Loads the surrogate that a protector's clusters live in.

    Raises:
      UserError: its weights are missing, or are others than those it was made with.
    """
    surrogate = surrogates.load(
        published.surrogate_name,
        path=published.surrogate_path,
        image_size=published.crop,
        precision=published.surrogate_precision,
    )
    if surrogate.sha256 != published.surrogate_sha256:
        raise UserError(
            f"{surrogate.id} has weights {surrogate.sha256[:12]}…, the protector was made with "
            f"{published.surrogate_sha256[:12]}…: fetch those, or train another protector"
        )
    return surrogate


def nearest_cluster(
    published: Protector, surrogate: surrogates.Surrogate
) -> Callable[[np.ndarray], int]:
    """Returns what gives a centre crop, uint8 `[crop, crop, 3]`, the cluster of the nearest centre.

    One image a call, so that the answer cannot depend on its neighbours in a batch.
    """

    @jax.jit
    def nearest(params: dict, centers: jax.Array, crop: jax.Array) -> jax.Array:
        feature = surrogate.embed(params, crop[None].astype(jnp.float32) / 255)
        return jnp.argmin(jnp.square(centers - feature).sum(axis=-1))

    params, centers = jax.device_put((surrogate.params, published.centers))
    return lambda crop: int(nearest(params, centers, crop))


def _below(photos: Path, folder: str) -> str:
    return Path(folder).relative_to(photos).as_posix()


def _refuser(photos: Path, out: Path) -> Callable[[str], str]:
    """Returns what recognises protected files by the manifests in reach."""
    known: dict[str, Path] = {}
    for place in (out, *photos.resolve().parents):
        # A manifest of somebody else's, or a damaged one, tells nothing about photos.
        if claim.is_ours(place) and (place / protected.SUMMARY).is_file():
            with contextlib.suppress(UserError):
                manifest = place / protected.MANIFEST
                known |= {r["output_sha256"]: manifest for r in protected.read_manifest(place)}
    return lambda digest: f"protected already, see {known[digest]}" if digest in known else ""
