"""Files written whole, one writer a folder, and files of strangers read without hanging.

Needs no JAX.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import platform
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ucjax.errors import DiskError, UserError

LOCK = ".lock"


def write_bytes(path: Path, data: bytes, mode: int | None = None) -> None:
    """Writes a file through a temporary neighbour, synced, and a rename, creating its folder.

    Args:
      path: what appears, complete or not at all.
      data: its content.
      mode: permissions, None for the usual ones.

    Raises:
      DiskError: the disk is full, or the place cannot be written to; the old file is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with saying(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for killed in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            killed.unlink(missing_ok=True)
    try:
        write_through(path, data, temporary, mode)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_through(path: Path, data: bytes, temporary: Path, mode: int | None = None) -> None:
    """Writes a file through `temporary`, which lies on the same disk; both folders are there.

    Args:
      path: what appears, complete or not at all, also after a power cut.
      data: its content.
      temporary: where it is written first; what was there is lost.
      mode: permissions, None for the usual ones.

    Raises:
      DiskError: the disk is full, or the place cannot be written to.
    """
    with saying(path):
        with draft(temporary, mode) as file:
            file.write(data)
        publish(temporary, path)


@contextlib.contextmanager
def draft(temporary: Path, mode: int | None) -> Iterator[BinaryIO]:
    """Gives a file to be written, which is synced in the end, for `publish`.

    Args:
      temporary: the file; what was there is lost.
      mode: permissions, None for the usual ones.

    Raises:
      OSError: it cannot be written to.
    """
    with open(temporary, "wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        yield file
        file.flush()
        os.fsync(file.fileno())


def publish(temporary: Path, path: Path) -> None:
    """Gives a synced file its name, on the same disk, also after a power cut.

    Raises:
      OSError: the place cannot be written to.
    """
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut, where the system can promise that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of some network file systems
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def saying(path: Path) -> Iterator[None]:
    """Turns what the system says about writing into one line that names the path."""
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise DiskError(
            f"cannot write {path}: {reason}; see to it, then run again to go on"
        ) from error


def open_regular(path: Path, below: Path | None = None) -> int:
    """Opens a regular file for reading and returns its descriptor; never waits for a pipe.

    Args:
      path: the file.
      below: a folder; neither the file nor a folder between may then be a link.

    Raises:
      OSError: it cannot be opened, is no regular file, or a link where none may be.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    if below is not None:
        flags |= getattr(os, "O_NOFOLLOW", 0)
        for folder in path.parents:
            if folder == below:
                break
            if folder.is_symlink():
                raise OSError(errno.ELOOP, "its folder is a link")
        if path.is_symlink():
            raise OSError(errno.ELOOP, "it is a link")
    # A look before opening: to open a device may already do something.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise IsADirectoryError(errno.EISDIR, "not a file")
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, "not a file")
    return descriptor


def read_regular(path: Path, below: Path | None = None) -> bytes:
    """Returns the content of a regular file (see `open_regular`)."""
    with open(open_regular(path, below), "rb") as file:
        return file.read()


def sha256_regular(path: Path, below: Path | None = None) -> str:
    """Returns the hex SHA-256 of a regular file (see `open_regular`)."""
    with open(open_regular(path, below), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes this process the only one that writes to a folder, which is created.

    The lock is the system's: a process that dies, however, holds it no more.

    Raises:
      UserError: another process holds it; says which, and since when.
      DiskError: the folder cannot be written to.
    """
    import fcntl  # not on Windows

    path = folder / LOCK
    with saying(path):
        folder.mkdir(parents=True, exist_ok=True)
    while True:
        with saying(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(path, flags, 0o600)
        with open(descriptor, "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{folder} is being written by {_holder(file.read())}: wait for it to end, or "
                    "stop it; then run again"
                ) from error
            except OSError as error:
                raise DiskError(
                    f"cannot lock {path}: {error.strerror}; use a local disk"
                ) from error
            if not _is(path, descriptor):
                continue  # whoever held it removed it when it was done
            with saying(path):
                file.truncate(0)
                json.dump({"pid": os.getpid(), "host": platform.node(), "since": time.time()}, file)
                file.flush()
            try:
                yield
            finally:
                with contextlib.suppress(OSError):
                    path.unlink()
            return


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(found["since"])))
        return f"process {int(found['pid'])} since {since}"
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return "another process"
