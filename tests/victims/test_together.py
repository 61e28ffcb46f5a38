import threading
import time

import pytest
from test_training import SPEC, TEST, TRAIN

from ucjax.errors import UserError
from ucjax.runtime.progress import MetricsFile
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
