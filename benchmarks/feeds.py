"""How much of a victim's step goes into getting its images, resident or streamed.

    python -m benchmarks.feeds

The same steps are taken with a feed's batches, each another one, and on one batch that is there.
On an accelerator see also `benchmarks.gpu`, which does this for the noise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks import timing
from benchmarks.pets_job import make_images
from ucjax.config import photos
from ucjax.data.feed import Feed
from ucjax.runtime import parallel
from ucjax.victims.contract import VictimSpec
from ucjax.victims.step import compile_victim
from ucjax.victims.training import epoch_batches

_CLASSES = 10
# (width, crop, images in an epoch)
_CASES = ((16, 64, 960), (16, 224, 320), (64, 64, 320))


def main() -> None:
    """Prints a line a victim and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/feeds.json"))
    arguments = parser.parse_args()
    mesh, rows = parallel.make_mesh(), []
    for width, crop, count in _CASES:
        ways = epochs(width, crop, count, mesh)
        for way in ways.values():
            timing.timed(way)  # compiles
        times = timing.in_turns(ways, arguments.repeats)
        alone = times.pop("alone")
        waiting = {
            name: [1 - a.wall / t.wall for a, t in zip(alone, taken, strict=True)]
            for name, taken in times.items()
        }
        spelled = ", ".join(
            f"{name} {timing.spelled([100 * share for share in shares], 1)} % waiting"
            for name, shares in waiting.items()
        )
        seconds = timing.spelled([taken.wall for taken in alone])
        print(f"width {width}, {crop} px: {count} images in {seconds} s; {spelled}", flush=True)
        rows.append({"width": width, "crop": crop, "images": count, "waiting": waiting})
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    values = {"machine": timing.machine(), "rows": rows}
    arguments.out.write_text(json.dumps(values, indent=2) + "\n")


def epochs(width: int, crop: int, count: int, mesh: Mesh) -> dict[str, Callable[[], Any]]:
    """Returns an epoch of a victim by where its images come from."""
    given = photos().victim
    given.update(width=width, crop=crop, short_side=crop + crop // 7)
    spec = VictimSpec(model="resnet18", recipes=(), **given)
    images = make_images(count, spec.short_side)
    programs = compile_victim(spec, _CLASSES, count // spec.batch_size, mesh)
    seed = parallel.replicate(np.uint32(0), mesh)
    batches = epoch_batches(count, spec.batch_size, 0, 0)
    labels = parallel.shard(np.arange(spec.batch_size, dtype=np.int32) % _CLASSES, mesh)

    def train(loaded: Iterable[jax.Array]) -> Any:
        state, results = programs.init(seed), []
        for pixels in loaded:
            state, values = programs.step(state, pixels, labels, seed)
            results.append(values)
        return results

    feeds = {
        "resident": Feed(images, crop, mesh=mesh),
        "streamed": Feed(images, crop, mesh=mesh, budget_bytes=0),
    }
    there = feeds["streamed"].random_crops(batches[0], 0, 0)
    requests = [(batch, 0, step) for step, batch in enumerate(batches)]
    return {"alone": lambda: train([there] * len(batches))} | {
        name: lambda feed=feed: train(feed.prefetch(requests)) for name, feed in feeds.items()
    }


if __name__ == "__main__":
    main()
