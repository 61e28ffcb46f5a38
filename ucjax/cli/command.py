"""Parses the command line, runs one sub-command, and turns a user's mistake into one line.

Exit codes: 0 all is well; 1 a check did not pass, or something could not be written; 2 bad input;
3 done, with exceptions (pictures that could not be protected); 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import ucjax
from ucjax.errors import DiskError, UserError, printable

COMMANDS = {
    "preview": "show some photos at several strengths, before anything is written",
    "protect": "write protected copies of a folder of photos",
    "verify": "check protected files against their originals, independently",
    "evaluate": "measure on your photos whether the protection works",
    "compare": "put any protections and anybody's files against any victims, in one table",
    "table": "merge the tables of several runs into one ranked leaderboard",
    "plan": "say what a run will cost before it starts",
    "report": "write the report of a run's folder again",
    "export": "hand protected files to other ecosystems, byte for byte",
    "doctor": "describe this installation, to be pasted into a bug report",
}
EPILOG = """exit codes: 0 all is well · 1 a check did not pass, or could not write · 2 bad input
            3 done, with exceptions (some pictures could not be protected) · 130 interrupted
any key of the configuration can be set where --config is listed: --config.noise.epochs=10"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `ucjax` with the given or the process's arguments; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments = parse(given)
        return importlib.import_module(f"ucjax.cli.{arguments.command}").run(arguments)
    except DiskError as error:
        return _fail(f"error: {error}", 1)
    except UserError as error:
        return _fail(f"error: {error}", 2)
    except KeyboardInterrupt:
        return _fail("interrupted: the same command goes on from here", 130)
    except BrokenPipeError:  # `ucjax … | head`
        sys.stderr.close()
        return 1
    except OSError as error:  # of the system, not of the input: a disk, a limit, a permission
        return _fail(f"error: {error.filename or 'this system'}: {error.strerror or error}", 1)


def parse(given: Sequence[str]) -> argparse.Namespace:
    """Parses arguments; `overrides` are the `--config.key=value` among them.

    Raises:
      UserError: an unknown argument.
      SystemExit: after help, or with code 2 what argparse itself refuses.
    """
    parser = argparse.ArgumentParser(
        prog="ucjax",
        description=ucjax.__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ucjax {ucjax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in given:  # modules of the other commands are not imported
            importlib.import_module(f"ucjax.cli.{name}").add_arguments(command)
    arguments, rest = parser.parse_known_args(given)
    arguments.overrides = [value for value in rest if value.startswith("--config.")]
    unknown = [value for value in rest if value not in arguments.overrides]
    if arguments.overrides and not hasattr(arguments, "config"):
        unknown += arguments.overrides
    if unknown:
        raise UserError(f"unexpected argument {unknown[0]!r}: see ucjax {arguments.command} --help")
    return arguments


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`; keys are then set as `--config.key=value`."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="an experiment such as configs/pets.py; without it the defaults for photos",
    )


def _fail(message: str, code: int) -> int:
    print(printable(message), file=sys.stderr, flush=True)
    return code
