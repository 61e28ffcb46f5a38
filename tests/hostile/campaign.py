"""Kills, bit flips, cuts and rivals at random, and what must hold after each.

python tests/hostile/campaign.py --kills 200 --flips 2000

Every command of `COMMANDS` is killed at random moments by random signals; when it is then left
alone, all bytes are those of an undisturbed run, and the originals are untouched. Every file that
a user may hand in is damaged at random places: the command ends with 0, 1, 2 or 3 and without a
trace. Where the system refuses to write, it is one line, and the same command goes on. Two
processes that want one folder: one of them says who has it, and all bytes are right.
Prints counts per kind, and ends with 1 if anything broke.
"""

import argparse
import collections
import contextlib
import io
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import odd_files  # noqa: E402
import ready  # noqa: E402


class Place(NamedTuple):
    """Where a campaign happens."""

    photos: Path
    protector: Path
    copies: Path  # what `protect` wrote once, undisturbed
    trial: Path  # what a trial writes


# Name -> the command that writes `place.trial`.
COMMANDS: dict[str, Callable[[Place], tuple]] = {
    "protect": lambda place: (
        "protect", place.photos, place.trial, "--protector", place.protector, "--threads", 2,
    ),
    "export": lambda place: ("export", place.copies, "--to", "webdataset", place.trial),
    "compare": lambda place: (
        "compare", place.photos, "--row", f"theirs={place.copies}", "--protections", "clean",
        "--victims", "linear", "--seeds", 1, "--workdir", place.trial, *TINY,
    ),
    "main": lambda place: (
        "--config=configs/smoke.py", f"--workdir={place.trial}", *TINY,
        "--config.victims=('linear',)",
        f"--config.data.cache={place.trial.parent / 'decoded'}",
    ),
}  # fmt: skip
TINY = (
    "--config.availability=False", "--config.victim.short_side=36", "--config.victim.crop=32",
    "--config.victim.epochs=2", "--config.victim.batch_size=8",
)  # fmt: skip
# A trial of these takes minutes: one kill in ten each.
TRAINING = ("compare", "main")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# What tells where, when or how long, and not what.
IGNORED = (
    ".lock", "env.json", "metrics.jsonl", "config.json", "report.html", "made.json", "table.json",
    "table.csv",
)  # fmt: skip


def prepare(folder: Path, count: int) -> Place:
    """Writes photos and a protector, and protects the photos undisturbed."""
    place = Place(*(folder / name for name in ("photos", "protector", "copies", "trial")))
    ready.protector(place.protector)
    for number in range(count):
        path = place.photos / f"{number % 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.photo(300, 240 + number % 7, seed=number).save(path)
    command = ("protect", place.photos, place.copies, "--protector", place.protector)
    code, text = ready.ucjax(*command)
    assert code == 0, text
    return place


def begin(name: str, place: Place) -> subprocess.Popen:
    """Starts a command in a process of its own."""
    module = "ucjax.main" if name == "main" else "ucjax"
    return ready.start(*COMMANDS[name](place), module=module, cwd=ROOT)


def content(folder: Path) -> dict[str, bytes]:
    """Returns all bytes of a folder that must not depend on kills."""
    return {k: v for k, v in ready.content(folder).items() if Path(k).name not in IGNORED}


# Kills


def kill(name: str, place: Place, rng: random.Random, whole: dict[str, bytes], usual: float) -> str:
    """Kills a command a few times, lets it end, and compares; returns what was done.

    Raises:
      AssertionError: something was lost.
    """
    shutil.rmtree(place.trial, ignore_errors=True)
    done = []
    for _ in range(rng.randint(1, 3)):
        process = begin(name, place)
        time.sleep(_moment(name, place, rng, usual))
        chosen = rng.choice(SIGNALS)
        alive = process.poll() is None
        process.send_signal(chosen)
        text, _ = process.communicate(timeout=120)
        if alive:
            done.append(chosen.name)
        allowed = (0, 130, -chosen)
        assert process.returncode in allowed, f"{process.returncode}: {text}"
        # Python itself may be caught while it starts or ends, where nothing of ours runs yet.
        assert "Traceback" not in text or process.returncode != 130, text
    process = begin(name, place)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert content(place.trial) == whole, f"after {done} other bytes: {_different(place, whole)}"
    return "+".join(done) or "too late"


def _moment(name: str, place: Place, rng: random.Random, usual: float) -> float:
    """Waits until the command writes, four times in five; returns how long to wait then."""
    if rng.random() < 0.2:
        return rng.uniform(0, usual)
    end = time.monotonic() + 2 * usual
    while not place.trial.parent.exists() or not _begun(place.trial):
        if time.monotonic() > end:
            break
        time.sleep(0.002)
    return rng.uniform(0, 0.3 * usual)


def _begun(trial: Path) -> bool:
    return trial.exists() or any(trial.parent.glob(f".{trial.name}.*"))


def _different(place: Place, whole: dict[str, bytes]) -> list[str]:
    found = content(place.trial)
    return sorted(k for k in whole.keys() | found.keys() if whole.get(k) != found.get(k))


def kills(place: Place, count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yields the kind and the outcome of every kill."""
    slow = count // 10
    for name in COMMANDS:
        share = slow if name in TRAINING else -(-(count - 2 * slow) // 2)
        if not share:
            continue
        shutil.rmtree(place.trial, ignore_errors=True)
        start = time.monotonic()
        process = begin(name, place)
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 0, text
        usual, whole = time.monotonic() - start, content(place.trial)
        before, killed = content(place.photos), 0
        while killed < share:
            with failing(f"kill {name}") as outcome:
                done = kill(name, place, rng, whole, usual)
                outcome.append(done)
            for word in outcome[0].split("+"):
                killed += word != "too late"
                yield f"kill {name}", word
        assert content(place.photos) == before


# Flips


def damaged(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Returns a file with a few bits flipped, cut short, grown, or with a piece repeated."""
    kind = rng.choice(("flip", "flip", "flip", "cut", "grown", "repeated"))
    if kind == "flip" or not data:
        changed = bytearray(data or b"\0")
        for _ in range(rng.choice((1, 1, 3, 20))):
            # Headers decide more than pixels do.
            reach = len(changed) if rng.random() < 0.5 else min(200, len(changed))
            changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
        return kind, bytes(changed)
    if kind == "cut":
        return kind, data[: rng.randrange(len(data))]
    if kind == "grown":
        return kind, data + rng.randbytes(rng.randint(1, 200))
    start, size = rng.randrange(len(data)), rng.randint(1, 100)
    return kind, data[: start + size] + data[start:]


class Input(NamedTuple):
    """A file that a user may hand in: where it lies, and the commands that read it."""

    path: Callable[[Place, random.Random], Path]
    commands: Callable[[Place], list[tuple]]


def _verify(place: Place) -> tuple:
    return (
        "verify", place.copies, "--against", place.photos, "--protector", place.protector,
    )  # fmt: skip


def _any(folder: Callable[[Place], Path], pattern: str):
    return lambda place, rng: rng.choice(sorted(folder(place).rglob(pattern)))


INPUTS = {
    "photo": Input(
        _any(lambda place: place.photos, "*.*"),
        lambda place: [COMMANDS["protect"](place), _verify(place)],
    ),
    "copy": Input(_any(lambda place: place.copies / "images", "*.png"), lambda p: [_verify(p)]),
    "protector": Input(
        _any(lambda place: place.protector, "*.*"),
        lambda place: [COMMANDS["protect"](place), _verify(place)],
    ),
    "manifest": Input(
        lambda place, rng: place.copies / "manifest.jsonl",
        lambda place: [_verify(place), COMMANDS["export"](place)],
    ),
    "summary": Input(
        lambda place, rng: place.copies / "summary.json",
        lambda place: [_verify(place), COMMANDS["export"](place)],
    ),
}
# Forms of photos that the flips are made on, beside JPEG.
FORMS = ("png", "webp", "tiff", "gif", "bmp", "avif")


def flips(place: Place, count: int, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yields the kind and the outcome of every damaged file."""
    for number, form in enumerate(FORMS):
        picture = odd_files.photo(40, 36, seed=number)
        odd = {} if form in ("bmp", "gif") else {"exif": _exif()}
        picture.save(place.photos / f"form.{form}", **odd)
    for number in range(count):
        name = [*INPUTS][number % len(INPUTS)]
        path = INPUTS[name].path(place, rng)
        data = path.read_bytes()
        kind, changed = damaged(data, rng)
        path.write_bytes(changed)
        try:
            for command in INPUTS[name].commands(place):
                shutil.rmtree(place.trial, ignore_errors=True)
                with failing(f"{kind} of a {name}") as outcome:
                    outcome.append(_end(command))
                yield f"{kind} of a {name}", outcome[0]
        finally:
            path.write_bytes(data)


def _exif() -> bytes:
    exif = odd_files.Image.Exif()
    exif[0x8298] = "me"
    exif[0x8769] = {0x9003: "2024:05:06 07:08:09"}
    return exif.tobytes()


def _end(command: tuple) -> str:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        from ucjax.cli.command import main

        code = main([str(argument) for argument in command])
    text = out.getvalue() + err.getvalue()
    assert code in (0, 1, 2, 3), text
    assert "Traceback" not in text, text
    assert code != 2 or sum(line.startswith("error: ") for line in text.splitlines()) == 1, text
    return f"exit {code}"


# Rivals


def rivals(place: Place, count: int, whole: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """Starts two processes on one folder; yields how both ended."""
    for _ in range(count):
        shutil.rmtree(place.trial, ignore_errors=True)
        with failing("two at once") as outcome:
            processes = [ready.start(*COMMANDS["protect"](place)) for _ in range(2)]
            said: list[str] = ["", ""]

            def wait(index: int, processes: list = processes, said: list[str] = said) -> None:
                said[index], _ = processes[index].communicate(timeout=300)

            threads = [threading.Thread(target=wait, args=(index,)) for index in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            codes = sorted(process.returncode for process in processes)
            assert codes in ([0, 0], [0, 2]), said
            assert codes == [0, 0] or any("is being written by process" in x for x in said), said
            assert content(place.trial) == whole, _different(place, whole)
            outcome.append("one was refused" if codes[1] else "one after the other")
        yield "two at once", outcome[0]


# No room


def full(
    place: Place, count: int, rng: random.Random, whole: dict[str, bytes]
) -> Iterator[tuple[str, str]]:
    """Leaves too little room, in a file and in a file system; yields how it ended."""
    largest = max(len(data) for name, data in whole.items() if name.startswith("images/"))
    for _ in range(count):
        shutil.rmtree(place.trial, ignore_errors=True)
        with failing("no room in a file") as outcome:
            size = rng.randint(10, largest - 1)
            process = ready.start(*COMMANDS["protect"](place))
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
            _refused(process, place)
            _finished(place, whole)
            outcome.append("exit 1, then 0")
        yield "no room in a file", outcome[0]
        pages = rng.randint(1, sum(map(len, whole.values())) // 4096)
        small = place.trial.parent / "small"
        with failing("no room in a file system") as outcome, mounted(small, pages) as allowed:
            if allowed:
                inside = place._replace(trial=small / "out")
                _refused(ready.start(*COMMANDS["protect"](inside)), inside)
                subprocess.run(["mount", "-o", "remount,size=100m", small], check=True)
                _finished(inside, whole)
            outcome.append("exit 1, then 0" if allowed else "not allowed here")
        yield "no room in a file system", outcome[0]


@contextlib.contextmanager
def mounted(folder: Path, pages: int) -> Iterator[bool]:
    """Mounts an empty file system of so many pages; yields whether the system allows it."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={4096 * pages}", "none", folder]
    allowed = (
        shutil.which("mount") is not None
        and not subprocess.run(["mount", *options], capture_output=True, check=False).returncode
    )
    try:
        yield allowed
    finally:
        if allowed:
            subprocess.run(["umount", folder], check=True)


def _refused(process: subprocess.Popen, place: Place) -> None:
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 1, text
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, text
    assert f"cannot write {place.trial}" in errors[0], text
    assert "Traceback" not in text, text


def _finished(place: Place, whole: dict[str, bytes]) -> None:
    code, text = ready.ucjax(*COMMANDS["protect"](place))
    assert code == 0, text
    assert content(place.trial) == whole, _different(place, whole)


FAILURES: list[str] = []


@contextlib.contextmanager
def failing(what: str) -> Iterator[list[str]]:
    """Counts what goes wrong inside, and goes on."""
    outcome: list[str] = []
    try:
        yield outcome
    except Exception:
        FAILURES.append(f"{what}: {traceback.format_exc()}")
        outcome[:] = ["BROKE"]


def run(
    kill_count: int, flip_count: int, rival_count: int, full_count: int, seed: int
) -> collections.Counter:
    """Runs the whole campaign in a temporary folder; returns how often what ended how."""
    found: collections.Counter = collections.Counter()
    with tempfile.TemporaryDirectory() as scratch:
        place = prepare(Path(scratch), 40)
        found.update(kills(place, kill_count, random.Random(seed)) if kill_count else ())
        whole = content(place.copies)
        found.update(rivals(place, rival_count, whole))
        found.update(full(place, full_count, random.Random(seed + 2), whole))
    with tempfile.TemporaryDirectory() as scratch:
        place = prepare(Path(scratch), 4)
        found.update(flips(place, flip_count, random.Random(seed + 1)))
    return found


def main() -> int:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--rivals", type=int, default=3)
    parser.add_argument("--full", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    start = time.monotonic()
    found = run(given.kills, given.flips, given.rivals, given.full, given.seed)
    for (kind, outcome), count in sorted(found.items()):
        print(f"{kind:<24} {outcome:<20} {count:>6}")
    for failure in FAILURES[:10]:
        print(failure)
    print(
        f"{sum(found.values())} trials in {time.monotonic() - start:.0f} s, {len(FAILURES)} broke"
    )
    return 1 if FAILURES else 0


if __name__ == "__main__":
    sys.exit(main())
