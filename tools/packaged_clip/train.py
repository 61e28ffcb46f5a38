"""Trains the small CLIP that ucjax ships, on Tiny-ImageNet, and exports its image tower.

    python -m tools.packaged_clip.train --data=tiny-imagenet.zip --workdir=out/clip
    python -m tools.packaged_clip.train ... --patch=8 --epochs=90 --batch-size=1024   # a GPU
    python -m tools.packaged_clip.train ... --export-only         # of the last checkpoint

Contrastive between images and captions. A set of this kind has captions of only 200 meanings, so
in a batch of 128 nearly half of the images would meet another of their class, to be masked, and
half of the classes would be missing. Instead every step shows the text tower one caption of every
class, with one template for all, and each image must pick its own among the 200: the batch's
InfoNCE from image to text with duplicates merged and no class left out. It costs the text tower,
which is tiny and not shipped, a few per cent of the time.

A killed run goes on from its last checkpoint when the same command is given again, and ends with
the same bytes. Times, sizes and accuracies go into the model card.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from transformers.models.clip.modeling_flax_clip import FlaxCLIPModule

from tools.packaged_clip import data, export, model
from tools.packaged_clip import prompts as captions
from tools.packaged_clip.data import LabelledPictures
from tools.packaged_clip.model import Recipe
from tools.packaged_clip.step import Programs, State, compile_programs
from ucjax.data.feed import Feed
from ucjax.data.images import ImageSet
from ucjax.errors import UserError
from ucjax.runtime import checkpoint as files
from ucjax.runtime import parallel, workdir
from ucjax.runtime.progress import MetricsFile, Progress, say
from ucjax.victims.training import epoch_batches

OUTPUT = Path(__file__).parents[2] / "ucjax" / "assets" / "packaged_clip"


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What stays the same during a run."""

    recipe: Recipe
    pictures: LabelledPictures
    module: FlaxCLIPModule
    programs: Programs
    steps: int  # an epoch
    folder: Path
    mesh: Mesh


def prepare(recipe: Recipe, archive: Path, folder: Path, mesh: Mesh) -> Trainer:
    """Decodes the pictures and builds the programs.

    Raises:
      UserError: no data, or a batch that the devices cannot share.
    """
    if recipe.batch_size < 1 or recipe.batch_size % mesh.size:
        raise UserError(
            f"--batch-size is {recipe.batch_size}, not divisible by the {mesh.size} devices: try "
            f"{mesh.size * max(round(recipe.batch_size / mesh.size), 1)}"
        )
    pictures = data.load(archive, folder / "cache")
    prompts = captions.make(pictures.names)
    module = model.make(recipe, prompts)
    steps = math.ceil(len(pictures.train) / recipe.batch_size)
    programs = compile_programs(recipe, prompts, module, steps * recipe.epochs, mesh)
    return Trainer(recipe, pictures, module, programs, steps, folder, mesh)


def train(trainer: Trainer, *, checkpoint_steps: int, test_epochs: int) -> None:
    """Trains from the last checkpoint, if there is one, to the end of the recipe.

    Args:
      trainer: see `prepare`.
      checkpoint_steps: a checkpoint is written every so many steps, and at the end.
      test_epochs: zero-shot accuracy is measured every so many epochs.

    Raises:
      UserError: the loss is no longer finite.
    """
    recipe, steps, mesh = trainer.recipe, trainer.steps, trainer.mesh
    state, seconds = restore(trainer)
    feed = Feed(trainer.pictures.train, data.IMAGE_SIZE, mesh=mesh)
    metrics = MetricsFile(trainer.folder / "metrics.jsonl")
    seed = parallel.replicate(np.uint32(recipe.seed), mesh)
    first, total = int(state.step), steps * recipe.epochs
    progress = Progress("clip", total * recipe.batch_size, done=first * recipe.batch_size)
    start, values = time.monotonic() - seconds, np.zeros(2)
    for epoch in range(first // steps, recipe.epochs):
        batches = epoch_batches(len(trainer.pictures.train), recipe.batch_size, recipe.seed, epoch)
        totals: list[np.ndarray] = []
        result: jax.Array | None = None
        for number, rows in enumerate(batches, start=epoch * steps + 1):
            if number <= first:
                continue
            labels = parallel.shard(trainer.pictures.train.labels[rows], mesh)
            previous = result
            state, result = trainer.programs.step(state, feed.center_crops(rows), labels, seed)
            if previous is not None:  # read one step late, so that devices never wait for the host
                totals.append(_finite(previous, number - 1))
                loss, accuracy = np.mean(totals[-50:], axis=0)
                progress.update(number * recipe.batch_size, loss=loss, accuracy=accuracy)
            if number % checkpoint_steps == 0 or number == total:
                save(trainer, state, time.monotonic() - start)
        if result is not None:
            totals.append(_finite(result, (epoch + 1) * steps))
        values = np.mean(totals, axis=0)
        tested = {}
        if (epoch + 1) % test_epochs == 0 and epoch + 1 < recipe.epochs:
            tested["zero_shot"] = zero_shot(trainer, state.params)
            say(f"epoch {epoch + 1}: zero-shot {100 * tested['zero_shot']:.2f} %")
        metrics.write("clip", epoch + 1, loss=values[0], accuracy=values[1], **tested)
    if first < total:
        progress.close(total * recipe.batch_size, loss=values[0], accuracy=values[1])


def _finite(result: jax.Array, step: int) -> np.ndarray:
    values: np.ndarray = parallel.to_host(result)
    if not np.isfinite(values).all():
        raise UserError(f"the loss is {values[0]} at step {step}: lower --learning-rate")
    return values


def zero_shot(trainer: Trainer, params: Any) -> float:
    """Returns the share of validation pictures whose nearest class is their own."""
    pictures: ImageSet = trainer.pictures.val
    classes = parallel.replicate(parallel.to_host(trainer.programs.classes(params)), trainer.mesh)
    feed = Feed(pictures, data.IMAGE_SIZE, mesh=trainer.mesh)
    size = trainer.recipe.batch_size
    rows, mask = parallel.pad(np.arange(len(pictures)), size)
    correct = 0.0
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        real = parallel.shard((pictures.labels[batch], mask[start : start + size]), trainer.mesh)
        found = trainer.programs.score(params, classes, feed.center_crops(batch), *real)
        correct += float(parallel.to_host(found))
    return correct / len(pictures)


def restore(trainer: Trainer) -> tuple[State, float]:
    """Returns the last checkpoint's state and the seconds it took, or a new state and 0."""
    state, path = trainer.programs.init(), trainer.folder / "checkpoint.safetensors"
    if not parallel.agree(path.exists()):
        return state, 0.0
    like = {"state": parallel.to_host(state), "seconds": np.zeros(())}
    saved = files.load_tree(path, like)
    return parallel.replicate(saved["state"], trainer.mesh), float(saved["seconds"])


def save(trainer: Trainer, state: State, seconds: float) -> None:
    """Writes the checkpoint."""
    tree = {"state": parallel.to_host(state), "seconds": np.array(seconds)}
    if parallel.is_main():
        files.save_tree(trainer.folder / "checkpoint.safetensors", tree)


def record(trainer: Trainer) -> None:
    """Writes env.json: where this runs, for the card, which may be written elsewhere."""
    device = trainer.mesh.devices.flat[0]
    cpu = f"{os.cpu_count()} CPU cores"
    hardware = cpu if device.platform == "cpu" else f"{trainer.mesh.size} × {device.device_kind}"
    if parallel.is_main():
        value = {"hardware": hardware, "packages": workdir.versions()}
        files.write_json(trainer.folder / "env.json", value)


def export_last(trainer: Trainer, output: Path) -> None:
    """Measures and writes the image tower of the last checkpoint.

    Raises:
      UserError: there is no checkpoint.
    """
    state, seconds = restore(trainer)
    if not int(state.step):
        raise UserError(f"{trainer.folder} holds no checkpoint yet: train before you export")
    params = export.rounded(parallel.to_host(state.params))
    accuracy = zero_shot(trainer, parallel.replicate(params, trainer.mesh))
    measured = export.Measured(
        train_images=len(trainer.pictures.train),
        val_images=len(trainer.pictures.val),
        classes=len(trainer.pictures.names),
        epochs=int(state.step) / trainer.steps,
        minutes=seconds / 60,
        hardware=files.read_json(trainer.folder / "env.json")["hardware"],
        zero_shot_top1=accuracy,
    )
    if parallel.is_main():
        export.write(output, params, trainer.module.config, trainer.recipe, measured)
    say(f"zero-shot top-1 {100 * accuracy:.2f} % of {measured.val_images} images: {output}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses the flags: those below, and one for every field of `Recipe`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="tiny-imagenet.zip")
    parser.add_argument("--workdir", type=Path, required=True, help="cache, checkpoint, metrics")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    parser.add_argument("--export-only", action="store_true", help="export the last checkpoint")
    parser.add_argument("--checkpoint-steps", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--test-epochs", type=int, default=5, help="default: %(default)s")
    for field in dataclasses.fields(Recipe):
        flag, default = f"--{field.name.replace('_', '-')}", field.default
        parser.add_argument(flag, type=type(default), default=default, help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Trains, or goes on, then exports."""
    args = parse(arguments)
    recipe = Recipe(**{f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe)})
    workdir.claim(args.workdir, ConfigDict(dataclasses.asdict(recipe)))
    trainer = prepare(recipe, args.data, args.workdir, parallel.make_mesh())
    if not args.export_only:
        record(trainer)
        train(trainer, checkpoint_steps=args.checkpoint_steps, test_epochs=args.test_epochs)
    export_last(trainer, args.output)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
