"""Protects an image collection with Unlearnable Clusters and measures how well it holds.

python -m ucjax.main --config=configs/quickstart.py --workdir=out/quickstart

Fills the config's table of protections × victims × seeds: images, features, k-means, noise, files,
victims on the files, report. A killed run goes on where it was when the same command is given
again; no cell is trained twice. Keys of the config are explained
in ucjax/config.py and overridden as --config.noise.epochs=10. Exit code 2 means bad input.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from ucjax import config
from ucjax.cli import settings
from ucjax.errors import DiskError, UserError, printable

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="The experiment: a file such as configs/quickstart.py.", lock_config=True
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    "",
    "Folder of all results, shared by all processes; default out/<config's name>[-<its argument>].",
)
REUSE = flags.DEFINE_multi_string(
    "reuse", [], "Folder of another run whose cells may be taken; may be given several times."
)
COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "host:port of process 0, for clusters that JAX does not detect itself."
)
PROCESSES = flags.DEFINE_integer("processes", 1, "Number of processes, with --coordinator.")
PROCESS_ID = flags.DEFINE_integer("process_id", 0, "This process's number, with --coordinator.")
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Let JAX find the other processes (Cloud TPU pods, Slurm, Open MPI)."
)


def main(argv: list[str]) -> None:
    """Fills the table on every device of every process."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}: flags look like --config=FILE")
    if CONFIG.value is None:
        raise UserError("no --config: try --config=configs/quickstart.py")
    given = config_flags.get_config_filename(flags.FLAGS["config"])
    path, _, argument = given.partition(":")
    name = "-".join(filter(None, [Path(path).stem, argument]))
    workdir = Path(WORKDIR.value or f"out/{name}")
    if not PROCESS_ID.value and not DISTRIBUTED.value:
        expected = f"time of the config as it stands: {CONFIG.value.expected_time}"
        print(printable(f"{name} into {workdir} ({expected})"), flush=True)
    logging.set_verbosity(logging.WARNING)  # jax tells which backends it does not find
    from ucjax.comparison import run
    from ucjax.report.finish import finish
    from ucjax.runtime import parallel, progress  # jax takes seconds to import: --help should not

    parallel.initialize(
        coordinator=COORDINATOR.value, processes=PROCESSES.value, process_id=PROCESS_ID.value,
        detect=DISTRIBUTED.value,
    )  # fmt: skip
    filled = run.run(CONFIG.value, workdir, command=sys.argv, reuse=[Path(x) for x in REUSE.value])
    said = finish(filled)
    progress.say(said)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; what is wrong in a config is a mistake of the user, in one line."""
    try:
        if {"--help", "-h", "--helpfull"} & set(argv[1:]):
            print(f"{__doc__}\n{flags.FLAGS.main_module_help()}")
            sys.exit(0)
        return flags.FLAGS([_with_located_config(x, before) for before, x in pairwise(("", *argv))])
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(config.in_one_line(error)) from error


def _with_located_config(word: str, before: str) -> str:
    """Finds the file in "--config=FILE" and "--config FILE" where it is installed."""
    flag, sign, value = word.partition("=")
    if sign and flag in ("--config", "-config"):
        return f"{flag}={settings.located(value)}"
    return settings.located(word) if before in ("--config", "-config") else word


def cli() -> None:
    """Runs `main`; a `UserError` becomes one line and exit code 2, a full disk exit code 1."""
    try:
        app.run(main, flags_parser=_parse)
    except DiskError as error:
        sys.exit(_fail(f"error: {error}", 1))
    except UserError as error:
        sys.exit(_fail(f"error: {error}", 2))
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted: the same command goes on from here", 130))


def _fail(message: str, code: int) -> int:
    print(printable(message), file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    cli()
