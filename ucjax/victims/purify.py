"""A purifier of the user's own: a command that reads a folder of pictures and writes another.

The command is what stands on the command line or in a config, never what a finished run's files
say. It is started without a shell.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ucjax.data.decode import decode, open_file, without_warnings
from ucjax.data.images import Item, file_item, file_key
from ucjax.errors import UserError, printable
from ucjax.runtime import checkpoint, disk, parallel
from ucjax.runtime.progress import say

IN, OUT = "{in}", "{out}"
_LIST = "purified.json"
_LOG = "purify.log"
# Part of what results are remembered by: raise it when the command is given other files.
_FORMAT = 1
_HOURS = 24.0


def words(command: str) -> list[str]:
    """Returns the words of a command as a shell would split them.

    Raises:
      UserError: it has no program that can be found, lacks a placeholder, or a quote is open.
    """
    try:
        found = shlex.split(command)
    except ValueError as error:
        raise UserError(f"purify={command}: {error}") from error
    for placeholder in (IN, OUT):
        if not any(placeholder in word for word in found[1:]):
            raise UserError(
                f"purify={command} has no {placeholder}: write {IN} where the folder to read "
                f"belongs and {OUT} where the one to write does"
            )
    if shutil.which(found[0]) is None:
        raise UserError(f"purify={command}: there is no program {found[0]}: give its path")
    return found


def purified(items: Sequence[Item], command: str, folder: Path) -> list[Item]:
    """Returns the pictures as the command gives them back; the same again costs nothing.

    The command reads `000000.png` and so on, 8-bit RGB, and writes as many pictures of the same
    names, of any suffix, and sizes.

    Args:
      items: the pictures.
      command: what to start, with the placeholders `{in}` and `{out}`.
      folder: where results are kept, by the content of the pictures, of the command, and of the
        files that the command names.

    Raises:
      UserError: the command fails or takes longer than a day, or gives back something else.
    """
    parts = words(command)
    named = [file_key(Path(part)) for part in parts if os.path.isfile(part)]
    question = [_FORMAT, parts, named, [[item.name, item.content_key] for item in items]]
    place = folder / hashlib.sha256(json.dumps(question).encode()).hexdigest()[:20]
    if not parallel.agree((place / _LIST).is_file()):
        if parallel.is_main():
            with without_warnings():
                _run(items, parts, place)
        parallel.barrier("purified")
    listed = checkpoint.read_json(place / _LIST)
    return [
        file_item(place / "out" / name, item.name, item.label)
        for item, name in zip(items, listed, strict=True)
    ]


def _run(items: Sequence[Item], parts: Sequence[str], place: Path) -> None:
    """Fills `place`, which appears when all is well; what was in its way is a killed run's."""
    temporary = place.with_name(f".{place.name}.tmp")
    for killed in (place, temporary):
        shutil.rmtree(killed, ignore_errors=True)
    source, target = temporary / "in", temporary / "out"
    with disk.saying(place):
        for made in (source, target):
            made.mkdir(mode=0o700, parents=True)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        sizes = list(pool.map(lambda i: _write(items[i], source, i), range(len(items))))
    start = time.monotonic()
    arguments = [
        part.replace(IN, str(source.resolve())).replace(OUT, str(target.resolve()))
        for part in parts[1:]
    ]
    _call([parts[0], *arguments], place.with_name(_LOG))
    listed = _checked(target, sizes, parts[0])
    say(f"purify: {len(items)} pictures through {parts[0]} in {time.monotonic() - start:.0f} s")
    checkpoint.write_json(temporary / _LIST, listed)
    with disk.saying(place):
        shutil.rmtree(source)
        temporary.rename(place)
        disk.sync_folder(place.parent)


def _write(item: Item, folder: Path, number: int) -> tuple[int, int]:
    with item.open() as image:
        picture = decode(image)
    path = folder / f"{number:06d}.png"
    with disk.saying(path):
        picture.save(path, compress_level=1)
    return picture.size


def _call(arguments: Sequence[str], log: Path) -> None:
    name = arguments[0]
    try:
        with open(log, "wb") as output:
            # A session of its own, so that whatever it starts can be ended with it.
            process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise UserError(f"purify: {name} cannot be started: {error.strerror}") from error
    try:
        code = process.wait(timeout=3600 * _HOURS)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise UserError(f"purify: {name} took longer than {_HOURS:g} hours: see {log}") from error
    if code:
        last = log.read_bytes()[-2000:].decode(errors="replace").strip().splitlines()[-1:]
        said = f" ({printable(last[0])})" if last else ""
        raise UserError(f"purify: {name} ended with code {code}{said}: see {log}")


def _checked(folder: Path, sizes: Sequence[tuple[int, int]], name: str) -> list[str]:
    """Returns the files' names in order, if they are one picture of the same size for each given.

    Raises:
      UserError: they are not.
    """
    found = sorted(path for path in folder.iterdir())
    stems = [path.stem for path in found]
    expected = [f"{number:06d}" for number in range(len(sizes))]
    if stems != expected:
        missing = sorted({*expected} - {*stems})
        extra = [path.name for path, stem in zip(found, stems, strict=True) if stem not in expected]
        wrong = f"{missing[0]} is missing" if missing else f"{(extra or stems)[0]} is too much"
        raise UserError(
            f"purify: {name} was given {len(sizes)} pictures and wrote {len(found)} files, "
            f"{printable(wrong)}: it is to write each under the name it has, in {OUT} itself"
        )

    def fault(pair: tuple[Path, tuple[int, int]]) -> str:
        path, (width, height) = pair
        try:
            if path.is_symlink():
                return "is a link"
            with open_file(path) as image:
                now = decode(image).size
        except Exception as error:
            return f"is no picture ({error})"
        different = f"has {now[0]} x {now[1]} pixels, was given {width} x {height}"
        return "" if now == (width, height) else different

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        faults = list(pool.map(fault, zip(found, sizes, strict=True)))
    if wrong_ones := [(p.name, f) for p, f in zip(found, faults, strict=True) if f]:
        first = " ".join(wrong_ones[0])
        raise UserError(
            f"purify: {len(wrong_ones)} of {len(sizes)} files of {name} are not as they must be: "
            f"{printable(first)}"
        )
    return [path.name for path in found]
