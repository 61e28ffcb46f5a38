"""Does the protection work on these photos? Trains victims on the files, and says it in words.

A share of the photos is held out. Victims learn from the protected copies of the others, from
their originals, and from copies with random noise; all are tested on the held-out originals.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ucjax.data.images import ImageSet, Item
from ucjax.errors import UserError
from ucjax.photos import holdout
from ucjax.photos.holdout import FOLDER, Halves, Place
from ucjax.report import verdict
from ucjax.report.summary import Victims
from ucjax.report.tables import accuracy
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.progress import MetricsFile, Progress, say
from ucjax.victims import together
from ucjax.victims import training as victims
from ucjax.victims.step import State, compile_victim
from ucjax.victims.training import VictimResult, VictimSpec
from ucjax.victims.treatments import DEFENCES, defend

ARMS = ("clean", "random", "cluster_random", "protected")
TEXT = "evaluation.txt"  # beside evaluation.json
# Fewer epochs leave a victim so far from having learnt that nothing can be said.
_FEWEST_EPOCHS = 5
# Below this training accuracy a victim is said to be unfinished.
_FITTED = 0.9


@dataclass(frozen=True)
class Evaluation:
    """What the victims of every arm reached on held-out originals, and what that means."""

    results: dict[str, dict[int, VictimResult]]  # by arm ("protected + jpeg75") and seed
    verdict: verdict.Verdict
    class_names: tuple[str, ...]
    labels_by: str  # "sub-folders", or the surrogate whose clusters they are
    epochs: int
    train_count: int
    test_count: int

    def class_accuracies(self, arm: str) -> dict[str, float]:
        """Returns the mean accuracy over the seeds of every class that has test photos."""
        columns = zip(*(result.classes for result in self.results[arm].values()), strict=True)
        return {
            name: float(np.mean(column))
            for name, column in zip(self.class_names, columns, strict=True)
            if None not in column
        }


def evaluate(
    photos: Path,
    out: Path,
    config: ConfigDict,
    *,
    arms: Sequence[str] = ("clean", "random", "protected"),
    defences: Sequence[str] = (),
    labels_by: str = "",
    labels_path: str = "",
    minutes: float = 0.0,
) -> Evaluation:
    """Trains and tests victims; everything is kept in `out/evaluation`, where a rerun goes on.

    Args:
      photos: the originals.
      out: what `ucjax protect` wrote.
      config: of which `victim`, `data.test_fraction`, `clusters` and `seed` count.
      arms: of `ARMS`, with "clean" and "protected".
      defences: of `defences.DEFENCES`, each a further arm on the protected files.
      labels_by: a surrogate whose clusters are the labels; "" for the sub-folders, or without
        these a surrogate other than the protector's.
      labels_path: its weights.
      minutes: shortens the training of all victims together to about this time; 0 does not.

    Raises:
      UserError: bad input, in one line.
    """
    _check(arms, defences)
    place, mesh = holdout.find(photos, out), parallel.make_mesh()
    halves = holdout.split(place, config, mesh, labels_by=labels_by, labels_path=labels_path)
    spec = VictimSpec(**{k: v for k, v in config.victim.items() if k not in ("arms", "seeds")})
    victims.check(spec, devices=mesh.size)
    seeds = tuple(config.victim.seeds)
    if minutes:
        runs = (len(arms) + len(defences)) * len(seeds)
        epochs = _affordable(spec, halves, 60 * minutes / runs, mesh, out / FOLDER / "budget.json")
        spec = dataclasses.replace(spec, epochs=min(spec.epochs, epochs))
    say(
        f"{len(halves.train)} photos to train on, {len(halves.test)} to test, "
        f"{len(halves.class_names)} classes by {halves.labels_by}; {spec.epochs} epochs"
    )
    train = {arm: holdout.training_files(arm, place, halves, config.seed) for arm in arms}
    pairs = {arm: (items, halves.test) for arm, items in train.items()}
    for name in defences:
        treated = [[defend(i, name) for i in half] for half in (train["protected"], halves.test)]
        pairs[f"protected + {name}"] = treated[0], treated[1]
    results = _train(pairs, place, halves, spec, seeds, mesh)
    found = Evaluation(
        results=results,
        verdict=verdict.compare(
            Victims("protected", results["protected"]),
            [Victims(name, results[name]) for name in verdict.CONTROLS if name in results],
            classes=len(halves.class_names),
        ),
        class_names=halves.class_names,
        labels_by=halves.labels_by,
        epochs=spec.epochs,
        train_count=len(halves.train),
        test_count=len(halves.test),
    )
    checkpoint.write_json(out / FOLDER / "evaluation.json", asdict(found))
    checkpoint.write_bytes(out / FOLDER / TEXT, f"{text(found)}\n".encode())
    return found


def text(found: Evaluation) -> str:
    """Returns the accuracies as a table, the verdict, and the classes that lose least."""
    lines = [f"{'trained on':<20} {'last epoch %':>14} {'best epoch %':>14}"]
    for name, results in found.results.items():
        arm = Victims(name.replace("_", " "), results)
        lines.append(f"{arm.name:<20} {accuracy(arm, 'last'):>14} {accuracy(arm, 'peak'):>14}")
    clean, ours = found.class_accuracies("clean"), found.class_accuracies("protected")
    least = sorted(ours, key=lambda name: clean[name] - ours[name])[:3]
    listed = [
        f"{name} ({100 * ours[name]:.0f} %, clean {100 * clean[name]:.0f} %)" for name in least
    ]
    said = [found.verdict.result, found.verdict.meaning, f"least protected: {', '.join(listed)}"]
    fitted = float(np.mean([r.curve[-1].train_accuracy for r in found.results["clean"].values()]))
    if fitted < _FITTED:
        said.append(
            f"After {found.epochs} epochs the victims of the clean files know {100 * fitted:.0f} % "
            "of what they were trained on: an exploiter would train longer, and so should you "
            "(--config.victim.epochs) before trusting the comparison."
        )
    return "\n".join([*lines, *said])


def _check(arms: Sequence[str], defences: Sequence[str]) -> None:
    for given, known, what in ((arms, ARMS, "arm"), (defences, DEFENCES, "defence")):
        if unknown := set(given) - set(known):
            raise UserError(f"unknown {what} {unknown.pop()!r}: choose of {', '.join(known)}")
    if missing := {"clean", "protected"} - set(arms):
        raise UserError(f"the arms lack {missing.pop()!r}: nothing could be compared")


def _affordable(spec: VictimSpec, halves: Halves, seconds: float, mesh: Mesh, answer: Path) -> int:
    """Returns the epochs that the seconds of one victim allow, as measured by the first call."""
    question = {**asdict(spec), "seconds": seconds, "photos": len(halves.train)}
    question = json.loads(json.dumps(question))
    if answer.exists() and (known := checkpoint.read_json(answer))["question"] == question:
        return known["epochs"]
    rate = _images_per_second(spec, halves, mesh)
    # Testing takes a third of the time of training: it needs no gradient.
    epochs = int(seconds * rate / (len(halves.train) + len(halves.test) / 3))
    if epochs < _FEWEST_EPOCHS:
        raise UserError(
            f"--minutes allows {epochs} epochs a victim at {rate:.0f} images/s, fewer than "
            f"{_FEWEST_EPOCHS}: allow more, or lower --seeds"
        )
    checkpoint.write_json(answer, {"question": question, "epochs": epochs})
    return epochs


def _images_per_second(spec: VictimSpec, halves: Halves, mesh: Mesh) -> float:
    steps = spec.epochs * math.ceil(len(halves.train) / spec.batch_size)
    programs = compile_victim(spec, len(halves.class_names), steps, mesh)
    seed = parallel.replicate(np.uint32(0), mesh)
    pixels = np.zeros((spec.batch_size, spec.crop, spec.crop, 3), np.uint8)
    batch = parallel.shard((pixels, np.zeros(spec.batch_size, np.int32)), mesh)
    jax.block_until_ready(programs.step(programs.init(seed), *batch, seed))  # compiles
    timed = 5

    def train(state: State) -> None:
        for _ in range(timed):
            state, _ = jax.block_until_ready(programs.step(state, *batch, seed))

    states = [jax.block_until_ready(programs.init(seed)) for _ in range(together.at_once(mesh))]
    start = time.monotonic()
    with ThreadPoolExecutor() as pool:
        list(pool.map(train, states))
    return len(states) * timed * spec.batch_size / (time.monotonic() - start)


def _train(
    pairs: dict[str, tuple[list[Item], list[Item]]],
    place: Place,
    halves: Halves,
    spec: VictimSpec,
    seeds: Sequence[int],
    mesh: Mesh,
) -> dict[str, dict[int, VictimResult]]:
    """Trains a victim per arm and seed, or reads it; seeds come first, to compare arms early."""
    metrics = MetricsFile(place.out / FOLDER / "metrics.jsonl")
    trainings: dict[str, together.Training] = {}
    paths: dict[tuple[str, int], Path] = {}
    for seed in seeds:
        for arm, items in pairs.items():
            # Other photos, files or settings are other victims, and those of before are kept.
            made_of = [[(i.name, i.label, i.content_key) for i in half] for half in items]
            key = hashlib.sha256(json.dumps([asdict(spec), made_of]).encode()).hexdigest()[:12]
            path = place.out / FOLDER / "victims" / f"{arm.replace(' ', '')}-seed{seed}-{key}.json"
            paths[arm, seed] = path
            if not path.exists():
                label = f"{arm} seed {seed}"
                train, test = (
                    place.decode(f"{arm}-{half}", half_items, spec.short_side, halves.class_names)
                    for half, half_items in zip(("train", "test"), items, strict=True)
                )
                trainings[label] = partial(
                    _train_one, train, test, spec, seed, mesh, metrics, label, path
                )
    together.run(trainings, mesh)
    results: dict[str, dict[int, VictimResult]] = {arm: {} for arm in pairs}
    for (arm, seed), path in paths.items():
        results[arm][seed] = victims.read_result(path)
    return results


def _train_one(
    train: ImageSet, test: ImageSet, spec: VictimSpec, seed: int, mesh: Mesh,
    metrics: MetricsFile, label: str, path: Path, progress: Callable[..., Progress],
) -> None:  # fmt: skip
    unfinished = path.with_suffix(".safetensors")
    result = victims.train(
        train,
        test,
        spec,
        seed=seed,
        mesh=mesh,
        checkpoint=unfinished,
        metrics=metrics,
        label=label,
        progress=progress,
    )
    checkpoint.write_json(path, asdict(result))
    unfinished.unlink(missing_ok=True)
