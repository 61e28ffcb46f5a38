import io
import itertools
import json
import os
import re

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

    def fileno(self):
        return 1


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(metrics, "time", clock)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((200, 9)))
    return clock


@pytest.fixture
def second_process(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)


def run(progress, clock, *, seconds, total):
    for done in range(1, total + 1):
        clock.now += seconds
        progress.update(done, loss=0.5 / done)
    progress.close(total, loss=0.25)


def drawn(terminal):
    """What was on the line, one change after the other."""
    shown = (text.strip() for text in terminal.getvalue().split("\r"))
    return [text for text, _ in itertools.groupby(shown) if text]


def test_a_log_gets_a_line_at_once_and_then_every_few_seconds(clock):
    log = io.StringIO()
    run(metrics.Progress("noise", 9, stream=log), clock, seconds=3, total=9)
    assert log.getvalue().splitlines() == [
        "noise 0/9 · starting",
        "noise 2/9 · loss 0.25 · 0.33 images/s · 0:21 left",
        "noise 4/9 · loss 0.125 · 0.33 images/s · 0:15 left",
        "noise 6/9 · loss 0.08333 · 0.33 images/s · 0:09 left",
        "noise 8/9 · loss 0.0625 · 0.33 images/s · 0:03 left",
        "noise 9/9 · loss 0.25 · 0.33 images/s · 0:27",
    ]


def test_the_log_of_a_long_stage_stays_short(clock):
    log = io.StringIO()
    run(metrics.Progress("noise", 3600, stream=log), clock, seconds=1, total=3600)
    assert 3600 / 20 < len(log.getvalue().splitlines()) < 3600 / 20 + 30


def test_a_terminal_shows_a_bar_at_once_and_draws_it_again_in_place(clock):
    terminal = Terminal()
    progress = metrics.Progress("noise", 5, stream=terminal, unit="steps")
    assert drawn(terminal)[0].startswith("noise 0/5 |")
    run(progress, clock, seconds=0.15, total=5)
    assert [line.split(" |")[0] for line in drawn(terminal)] == [
        f"noise {i}/5" for i in (0, 2, 4, 5)
    ]
    assert "loss 0.25 · 6.67 steps/s" in drawn(terminal)[1]
    assert terminal.getvalue().count("\n") == 1
    assert drawn(terminal)[-1].endswith("loss 0.25 · 6.67 steps/s · 0:01")


def test_a_terminal_line_never_wraps(clock, monkeypatch):
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((30, 9)))
    terminal = Terminal()
    progress = metrics.Progress("a rather long label", 1000, stream=terminal)
    clock.now += 1
    progress.update(1, some_long_name=1.0)
    assert drawn(terminal)[1].startswith("a rather long label 1/1000")
    assert all(len(line) < 30 for line in drawn(terminal))


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_counts_never_pass_their_total(clock, stream):
    stream = stream()
    progress = metrics.Progress("noise", 40, stream=stream, done=64)
    for done in (39, 64, 96):
        clock.now += 30
        progress.update(done)
    progress.close(96)
    counts = re.findall(r"noise (\d+)/40", stream.getvalue())
    assert len(counts) >= 3
    assert {int(count) for count in counts} == {39, 40}


def test_a_tenth_in_the_time_left_is_told_though_compiling_took_long(clock):
    log = io.StringIO()
    progress = metrics.Progress("victim", 100, stream=log)
    clock.now += 60  # compiles, and takes the first step
    progress.update(1)
    for done in range(2, 12):
        clock.now += 1
        progress.update(done)
    # The mean of all, with what was compiled, would tell of nine minutes.
    assert log.getvalue().splitlines()[-1] == "victim 11/100 · 1.00 images/s · 1:29 left"


def test_hidden_progress_tells_the_end_alone(clock):
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        run(metrics.Progress("b", 9, stream=stream, shown=False), clock, seconds=9, total=9)
    assert log.getvalue() == "b 9/9 · loss 0.25 · 0.11 images/s · 1:21\n"
    assert log.getvalue() in terminal.getvalue()
    assert "b 8/9" not in terminal.getvalue()


def test_the_rate_leaves_out_what_an_earlier_run_did(clock):
    log = io.StringIO()
    progress = metrics.Progress("victim", 10_000, done=6000, stream=log)
    for done in (7000, 9000):
        clock.now += 20
        progress.update(done, share_moved=0.5)
    assert log.getvalue().splitlines() == [
        "victim 6000/10000 · starting",
        "victim 7000/10000 · share moved 0.5 · ? left",
        "victim 9000/10000 · share moved 0.5 · 100 images/s · 0:10 left",
    ]


def test_no_rate_and_long_times(clock):
    log = io.StringIO()
    progress = metrics.Progress("x", 3, stream=log)
    for done, seconds in ((0, 20), (1, 20), (2, 3641)):
        clock.now += seconds
        progress.update(done)
    assert log.getvalue().splitlines()[1:] == [
        "x 0/3 · ? left",
        "x 1/3 · ? left",
        "x 2/3 · 0.00 images/s · 1:00:41 left",
    ]


def test_what_follows_a_stage_is_told_at_the_pace_of_the_stages_so_far(clock, capsys):
    outlook = metrics.Outlook({"read": 1, "learn": 8, "write": 2})
    run(outlook.progress("read", 4), clock, seconds=10, total=4)
    run(outlook.progress("learn", 16), clock, seconds=20, total=16)
    run(outlook.progress("write", 2), clock, seconds=20, total=2)
    lines = [x for x in capsys.readouterr().out.splitlines() if not x.endswith("starting")]
    line = {x.split(" · ")[0]: x for x in lines}
    # Half way, 0:40 are expected of the whole stage, and ten times as much afterwards.
    assert line["read 2/4"].endswith("0:20 left, 7:00 with what follows")
    # (40 + 320 s) / (1 + 8) for each unit, two of which follow.
    assert line["learn 2/16"].endswith("images/s · 4:40 left, 6:00 with what follows")
    assert line["write 1/2"].endswith("? left")
    assert lines[-1] == "write 2/2 · loss 0.25 · 0.05 images/s · 0:40"


def test_what_an_earlier_run_did_is_no_measure(clock, capsys):
    outlook = metrics.Outlook({"a": 1, "b": 1, "c": 1})
    progress = outlook.progress("b", 10, done=5)
    for done in (6, 7):
        clock.now += 20
        progress.update(done)
    # Ten more would take 200 s.
    assert capsys.readouterr().out.endswith("1:00 left, 4:20 with what follows\n")
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
