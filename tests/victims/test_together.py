import dataclasses
import threading
import time
from unittest import mock

import jax
import numpy as np
import pytest
from test_training import SPEC, TEST, TRAIN

from ucjax.errors import UserError
from ucjax.runtime import checkpoint, parallel
from ucjax.runtime.progress import MetricsFile
from ucjax.victims import step as victim_step
from ucjax.victims import together
from ucjax.victims import training as victims

PATIENCE = 30


def steps(count, *, fails_at=None, log=None):
    """A training of `count` steps, which knows its loss after the second."""

    def training(progress):
        line = progress("victim", count)
        for step in range(1, count + 1):
            if step == fails_at:
                raise UserError("the loss is nan")
            line.update(step, **({"loss": 1.0} if step > 2 else {}))
            if log is not None:
                log.append(step)
            time.sleep(0.01)
        line.close(count)

    return training


def test_victims_side_by_side_are_those_trained_alone(tmp_path, one_device):
    def training(seed, results):
        def train(progress):
            results[seed] = victims.train(
                TRAIN, TEST, SPEC, seed=seed, mesh=one_device,
                checkpoint=tmp_path / f"{seed}.safetensors",
                metrics=MetricsFile(tmp_path / "metrics.jsonl"), progress=progress,
            )  # fmt: skip

        return train

    alone, beside = {}, {}
    for seed in range(3):
        together.run({str(seed): training(seed, alone)}, one_device)
    together.run({str(seed): training(seed, beside) for seed in range(3)}, one_device)
    assert beside == alone
    assert alone[0] != alone[1]


def test_two_at_once_on_one_cpu_and_one_on_several_devices(mesh, one_device):
    assert (together.at_once(one_device), together.at_once(mesh)) == (2, 1)
    for devices, most in ((one_device, 2), (mesh, 1)):
        running, seen = [], []

        def training(progress, running=running, seen=seen):
            running.append(None)
            line = progress("victim", 20)
            for step in range(20):
                line.update(step, loss=1.0)
                seen.append(len(running))
                time.sleep(0.01)
            running.pop()

        together.run(dict.fromkeys("abcde", training), devices)
        assert max(seen) == most


def test_the_second_waits_for_the_programs_the_first_compiles(one_device):
    started = []

    def first(progress):
        line = progress("first", 2)
        line.update(1)
        time.sleep(0.5)
        assert not started
        line.update(2, loss=1.0)
        while not started:  # the test's own deadline is that of `run`
            time.sleep(0.01)

    together.run({"first": first, "second": lambda _: started.append(True)}, one_device)
    assert started


def test_a_failure_stops_the_other_and_nothing_follows(one_device):
    log, late = [], []
    trainings = {
        "long": steps(100 * PATIENCE, log=log),
        "fails": steps(10, fails_at=5),
        "late": steps(1, log=late),
    }
    with pytest.raises(UserError, match="the loss is nan"):
        together.run(trainings, one_device)
    assert 2 < len(log) < 100 * PATIENCE
    assert not late


def test_the_first_failing_stops_the_second(one_device):
    log = []
    trainings = {"fails": steps(20, fails_at=10), "long": steps(100 * PATIENCE, log=log)}
    with pytest.raises(UserError, match="the loss is nan"):
        together.run(trainings, one_device)
    assert 0 < len(log) < 100 * PATIENCE


def test_an_interrupt_stops_both(one_device, monkeypatch):
    logs = [], []

    def interrupted(*_, **__):
        while not all(logs):
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(together, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        together.run({str(i): steps(100 * PATIENCE, log=logs[i]) for i in range(2)}, one_device)
    assert all(len(log) < 100 * PATIENCE for log in logs)
    assert threading.active_count() < 10


def test_all_say_how_they_ended(one_device, capsys):
    together.run({"a": steps(20), "b": steps(20)}, one_device)
    assert capsys.readouterr().out.count("victim 20/20") == 2


STACK = dataclasses.replace(SPEC, recipes=("mixup",), epochs=2)


def test_a_step_of_a_stack_is_each_victim_s_own(mesh):
    seeds = [parallel.replicate(np.uint32(seed), mesh) for seed in (3, 4, 5)]
    alone = victim_step.compile_victim(STACK, 3, 20, mesh)
    stacked = victim_step.compile_stack(STACK, 3, 20, mesh, 3)
    batches = [
        parallel.shard((TRAIN.center_crops(16, rows), TRAIN.labels[rows]), mesh)
        for rows in (np.arange(i, i + 16) for i in (0, 20, 40))
    ]
    images, labels = zip(*batches, strict=True)
    expected = [alone.step(alone.init(s), *b, s) for s, b in zip(seeds, batches, strict=True)]
    states = tuple(alone.init(seed) for seed in seeds)
    states, values = stacked(states, images, labels, tuple(seeds))
    for ours, theirs in zip(zip(states, values, strict=True), expected, strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), ours, theirs
        )
    losses = [float(loss) for loss, _ in values]
    assert min(np.abs(np.diff(losses))) > 1e-3


def cells(folder):
    return [victims.Cell(TRAIN, TEST, s, folder / f"{s}.safetensors", f"seed {s}") for s in (1, 2)]


def test_a_stack_goes_on_alone_and_the_other_way_round(tmp_path, mesh, monkeypatch):
    monkeypatch.setattr(victims, "_CHECKPOINT_SECONDS", 0.0)
    spec = dataclasses.replace(STACK, learning_rate=0.01)

    def train(some, spec):
        metrics = MetricsFile(tmp_path / "metrics.jsonl")
        return victims.train_stack(some, spec, mesh=mesh, metrics=metrics)

    whole = train(cells(tmp_path / "a"), spec)
    assert [len(result.curve) for result in whole] == [2, 2]
    lines = (tmp_path / "metrics.jsonl").read_text()
    assert [lines.count(f"seed {s}") for s in (1, 2)] == [2, 2]
    assert whole[0] != whole[1]
    for cell, result in zip(cells(tmp_path / "b"), whole, strict=True):
        (alone,) = train([cell], spec)
        # Only the first epoch: BatchNorm of so few pixels makes rounding grow from step to step.
        ours, theirs = (r.curve[0].train_loss for r in (result, alone))
        assert ours == pytest.approx(theirs, rel=1e-3)
    # One of the stack has come further than the other: both end as before.
    for name in ("1", "2"):
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c" / f"{name}.safetensors").write_bytes(
            (tmp_path / "b" / f"{name}.safetensors").read_bytes()
        )
    (tmp_path / "c" / "2.safetensors").unlink()
    again = train(cells(tmp_path / "c"), spec)
    saved = [
        checkpoint.load_arrays(tmp_path / f / "2.safetensors")["state/params/fc/bias"] for f in "bc"
    ]
    np.testing.assert_array_equal(*saved)
    assert len(again) == 2


def test_cells_of_a_stack_have_equal_shapes(tmp_path, mesh):
    first, second = cells(tmp_path)
    second = dataclasses.replace(second, train=TEST)
    with pytest.raises(ValueError, match="differ in their images"):
        victims.train_stack([first, second], STACK, mesh=mesh, metrics=MetricsFile(tmp_path / "m"))


def test_stacks_are_of_equal_shapes_and_fit(mesh):
    wide = dataclasses.replace(SPEC, width=64, crop=224, batch_size=512)
    half = dataclasses.replace(wide, batch_size=256)
    asked = {f"a{i}": (SPEC, 100, 3) for i in range(10)} | {
        "b0": (SPEC, 90, 3), "c0": (wide, 90, 3), "c1": (wide, 90, 3),
    } | {f"d{i}": (half, 90, 3) for i in range(3)} | {"b1": (SPEC, 90, 3)}  # fmt: skip
    assert together.stacks(asked, mesh) == [[label] for label in asked]
    with mock.patch.object(jax, "default_backend", return_value="gpu"):
        assert together.stacks(asked, mesh) == [
            [f"a{i}" for i in range(8)], ["a8", "a9"], ["b0", "b1"], ["c0"], ["c1"],
            ["d0", "d1"], ["d2"],
        ]  # fmt: skip
