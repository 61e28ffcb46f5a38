import io
import json

import jax
import numpy as np
import pytest

from ucjax.runtime import progress as metrics


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    return clock


@pytest.fixture
def second_process(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)


def run(progress, clock, *, seconds, total):
    for done in range(1, total + 1):
        clock.now += seconds
        progress.update(done, loss=0.5 / done)
    progress.close(total, loss=0.25)


def test_a_log_gets_a_line_every_20_seconds(clock):
    log = io.StringIO()
    run(metrics.Progress("noise", 9, stream=log), clock, seconds=5, total=9)
    assert log.getvalue().splitlines() == [
        "noise 4/9 · loss 0.125 · 0.20 images/s · 0:25 left",
        "noise 8/9 · loss 0.0625 · 0.20 images/s · 0:05 left",
        "noise 9/9 · loss 0.25 · 0.20 images/s · 0:45",
    ]


def test_a_terminal_line_is_redrawn_in_place(clock):
    terminal = Terminal()
    run(metrics.Progress("noise", 5, stream=terminal, unit="steps"), clock, seconds=0.15, total=5)
    first, *drawn = terminal.getvalue().split("\r\x1b[K")
    assert first == ""
    assert [line.split(" · ")[0] for line in drawn] == [f"noise {i}/5" for i in (1, 3, 5, 5)]
    assert "6.67 steps/s" in drawn[1]
    assert terminal.getvalue().count("\n") == 1
    assert terminal.getvalue().endswith("0:01\n")


def test_a_terminal_line_never_wraps(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    terminal = Terminal()
    metrics.Progress("a rather long label", 1000, stream=terminal).update(1, some_long_name=1.0)
    assert terminal.getvalue() == "\r\x1b[Ka rather long label 1/1000 · "


def test_the_rate_leaves_out_what_an_earlier_run_did(clock):
    log = io.StringIO()
    progress = metrics.Progress("victim", 10_000, done=6000, stream=log)
    clock.now += 20
    progress.update(8000, share_moved=0.5)
    assert log.getvalue() == "victim 8000/10000 · share moved 0.5 · 100 images/s · 0:20 left\n"


def test_no_rate_and_long_times(clock):
    log = io.StringIO()
    progress = metrics.Progress("x", 2, stream=log)
    clock.now += 20
    progress.update(0)
    clock.now += 3641
    progress.update(1)
    assert log.getvalue().splitlines() == [
        "x 0/2 · 0.00 images/s · ? left",
        "x 1/2 · 0.00 images/s · 1:01:01 left",
    ]


def test_what_follows_a_stage_is_told_at_the_pace_of_the_stages_so_far(clock, capsys):
    outlook = metrics.Outlook({"read": 1, "learn": 8, "write": 2})
    run(outlook.progress("read", 4), clock, seconds=10, total=4)
    run(outlook.progress("learn", 16), clock, seconds=20, total=16)
    run(outlook.progress("write", 2), clock, seconds=20, total=2)
    lines = capsys.readouterr().out.splitlines()
    # A quarter in, 0:40 are expected of the whole stage, and ten times as much afterwards.
    assert lines[0].endswith("0:20 left, 7:00 with what follows")
    # (40 + 320 s) / (1 + 8) for each unit, two of which follow.
    assert lines[3].endswith("images/s · 5:00 left, 6:20 with what follows")
    assert lines[-3].endswith("0:20 left")
    assert lines[-1].endswith("0:40")


def test_what_an_earlier_run_did_is_no_measure(clock, capsys):
    outlook = metrics.Outlook({"a": 1, "b": 1, "c": 1})
    progress = outlook.progress("b", 10, done=5)
    clock.now += 20
    progress.update(6)
    # Ten more would take 200 s.
    assert capsys.readouterr().out.endswith("1:20 left, 4:40 with what follows\n")
    progress.close(10)
    assert outlook.later("unknown", 1.0, 1.0) == 0


def test_metrics_file_appends_json_lines(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    metrics.MetricsFile(path).write("noise", 1, loss=np.float32(0.5))
    metrics.MetricsFile(path).write("victim", 2, arm="clean", accuracy=np.asarray(0.75))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"stage": "noise", "step": 1, "loss": 0.5},
        {"stage": "victim", "step": 2, "arm": "clean", "accuracy": 0.75},
    ]


def test_say(capsys):
    metrics.say("hello")
    assert capsys.readouterr().out == "hello\n"


@pytest.mark.usefixtures("second_process")
def test_other_processes_are_silent(tmp_path, clock, capsys):
    terminal = Terminal()
    run(metrics.Progress("noise", 3, stream=terminal), clock, seconds=30, total=3)
    metrics.MetricsFile(tmp_path / "metrics.jsonl").write("noise", 1, loss=1.0)
    metrics.say("hello")
    assert terminal.getvalue() == capsys.readouterr().out == ""
    assert not list(tmp_path.iterdir())
