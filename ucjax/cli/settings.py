"""The configuration under a sub-command: a file or the owner's defaults, with overrides."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from ucjax import config as defaults
from ucjax import names
from ucjax.errors import UserError, printable


def load(
    file: str | None, overrides: Sequence[str], *, photos: int = 0, row: str = "", **settings: Any
) -> ConfigDict:
    """Returns the locked config of a file, or `config.photos(photos, row)`, with overrides.

    Args:
      file: as `ucjax.main` takes it, "configs/pets.py:rn50"; None for the defaults.
      overrides: such as "--config.noise.epochs=10".
      photos: their number, 0 where unknown.
      row: the one to protect them with, where it is the only one.
      settings: what the command's own options set, by dotted key with "__" for the dots;
        `overrides` win.

    Raises:
      UserError: no such file, or a wrong key or value.
    """
    arguments = [f"--config.{k.replace('__', '.')}={_spelled(v)}" for k, v in settings.items()]
    arguments += overrides
    if file is not None:
        file = located(file)
    values = flags.FlagValues()
    common = {"flag_values": values, "sys_argv": arguments, "lock_config": True}
    try:
        # Config files import each other as `configs.pets`, from where the command was typed.
        with importable(Path.cwd()):
            if file is None:
                config_flags.DEFINE_config_dict("config", defaults.photos(photos, row), **common)
            else:
                arguments.insert(0, f"--config={file}")
                config_flags.DEFINE_config_file("config", **common)
            values(["ucjax", *arguments])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(defaults.in_one_line(error)) from error
    return values["config"].value


def counted(photos: Path) -> int:
    """Returns the number of pictures in a folder, and says it before JAX is imported."""
    from ucjax.data.folder import walk

    count = len(walk(photos))
    if count:
        print(f"{count:,} pictures in {printable(str(photos))}", flush=True)
    return count


def located(given: str) -> str:
    """Returns a config as given, or where it is installed with ucjax if there is no such file.

    Args:
      given: as `ucjax.main` takes it, "configs/pets.py:rn50".

    Raises:
      UserError: neither.
    """
    path, sign, argument = given.partition(":")
    if Path(path).is_file():
        return given
    installed = (
        importlib.util.find_spec("configs") if Path(path).parts[:1] == ("configs",) else None
    )
    known: list[str] = []
    for folder in map(Path, (installed and installed.submodule_search_locations) or ()):
        if (file := folder.parent / path).is_file():
            return f"{file}{sign}{argument}"
        known += [x.relative_to(folder.parent).as_posix() for x in folder.rglob("[!_]*.py")]
    meant = names.near(path, known)
    hint = f"did you mean {meant}?" if meant else "see configs/"
    raise UserError(f"there is no config file {path}: {hint}")


def _spelled(value: Any) -> str:
    return repr(value) if isinstance(value, tuple) else str(value)


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Imports modules of a folder as well, as `python -m` does of the present one."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
