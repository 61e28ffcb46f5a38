"""What the packaged CLIP sees in photos, and how fast, beside EfficientNet-Lite0 and no learning.

    python -m tools.packaged_clip.measure PHOTOS --size=64 --size=128

PHOTOS holds a folder a class, or `train/` with them (as for `data.root`). Each picture is resized
to the short side `--size` and cropped to its centre. 5-NN: leave one out among the training
pictures, cosine distance of the features, the commonest class of five and of equally common ones
the nearest. Purity: of k-means as the pipeline runs it (ten starts), mean ± standard deviation over
seeds. Speed: images/s of features, and of their gradient to the input, batch after batch on all
devices. "shuffled" is the packaged CLIP with the numbers of each of its arrays in random order:
random weights of the learned sizes. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import programs, timing
from ucjax import surrogates
from ucjax.clusters import kmeans
from ucjax.data import sources
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.progress import Progress
from ucjax.surrogates.base import Surrogate
from ucjax.surrogates.features import features


def shuffled(surrogate: Surrogate, seed: int = 0) -> Surrogate:
    """Returns the surrogate with the numbers of every array in random order."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: rng.permutation(x.ravel()).reshape(x.shape), surrogate.params)
    return dataclasses.replace(surrogate, params=params)


def neighbour_accuracy(rows: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """Returns the share of rows `[n, d]` whose k nearest others have their label most often.

    Similarity is the cosine; of equally common labels that of the nearer neighbour wins.
    """
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    nearest = labels[np.argsort(-similar, axis=1, kind="stable")[:, :k]]
    votes = (nearest[:, :, None] == nearest[:, None, :]).sum(axis=2)
    # argmax takes the first, which is the nearest, of equal counts.
    winner = nearest[np.arange(len(rows)), votes.argmax(axis=1)]
    return float(np.mean(winner == labels))


def purities(
    rows: np.ndarray, labels: np.ndarray, k: int, seeds: int, mesh: Mesh
) -> tuple[float, float]:
    """Returns mean and standard deviation of the purity of k clusters over seeds."""
    found = [
        kmeans.purity(kmeans.fit(rows, k, seed=seed, mesh=mesh).assignment, labels)
        for seed in range(seeds)
    ]
    return float(np.mean(found)), float(np.std(found))


def measure(
    name: str, surrogate: Surrogate, photos: ImageSet, args: argparse.Namespace
) -> dict[str, Any]:
    """Returns one row of the table."""
    mesh, size = parallel.make_mesh(), surrogate.image_size
    rows = features(surrogate, photos, size=size, mesh=mesh, batch_size=args.batch_size)
    forward, backward = (
        args.batch_size
        * timing.per_second(make(surrogate, args.batch_size, mesh).run, args.seconds)
        for make in (programs.features, programs.input_gradient)
    )
    return {
        "surrogate": name,
        "sha256": surrogate.sha256,
        "size": size,
        "neighbour_accuracy": neighbour_accuracy(rows, photos.labels),
        "purity": {k: purities(rows, photos.labels, k, args.seeds, mesh) for k in args.clusters},
        "forward_images_per_second": forward,
        "gradient_images_per_second": backward,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """Prints the table."""
    counts = list(rows[0]["purity"])
    heads = "".join(f"{f'purity p={k} %':>18}" for k in counts)
    print(f"{'surrogate':26}{'px':>5}{'5-NN %':>9}{heads}{'forward/s':>12}{'gradient/s':>12}")
    for row in rows:
        cells = "".join(
            f"{f'{100 * mean:.1f} ± {100 * deviation:.1f}':>18}"
            for mean, deviation in row["purity"].values()
        )
        print(
            f"{row['surrogate']:26}{row['size']:>5}{100 * row['neighbour_accuracy']:9.1f}{cells}"
            f"{row['forward_images_per_second']:12.0f}{row['gradient_images_per_second']:12.0f}"
        )


def main() -> None:
    """Parses the flags, measures, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", help="a folder of class folders")
    parser.add_argument("--size", type=int, action="append", help="pixels, repeatable; default: 64")
    parser.add_argument("--clip", default="", help="folder of another CLIP of ours; default: ours")
    parser.add_argument("--cache", type=Path, default=parallel.cache_folder(), help="of pictures")
    parser.add_argument("--count", type=int, default=0, help="a sample of so many; default: all")
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 30])
    parser.add_argument("--seeds", type=int, default=3, help="of k-means; default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each timing")
    default = Path(__file__).with_name("results.json")
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args()
    rows = []
    for size in args.size or [64]:
        photos = sources.load(
            source="folder", root=args.photos, cache_dir=args.cache, short_side=size,
            train_count=args.count, progress=Progress,
        ).train  # fmt: skip
        ours = surrogates.load("packaged_clip", path=args.clip, image_size=size)
        compared = {
            "packaged_clip": ours,
            "efficientnet_lite0": surrogates.load("efficientnet_lite0", image_size=size),
            "packaged_clip, shuffled": shuffled(ours),
        }
        rows += [measure(name, each, photos, args) for name, each in compared.items()]
    show(rows)
    result = {
        "photos": len(photos),
        "classes": len(photos.class_names),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "jax": jax.__version__,
        "rows": rows,
    }
    checkpoint.write_json(args.out, result)
    print(f"{len(photos)} photos of {len(photos.class_names)} classes; written to {args.out}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
