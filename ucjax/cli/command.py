"""Parses the command line, runs one sub-command, and turns a user's mistake into one line.

Exit codes: 0 all is well; 1 a check did not pass, or something could not be written; 2 bad input;
3 done, with exceptions (pictures that could not be protected); 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import re
import sys
from collections.abc import Iterable, Sequence
from typing import NoReturn

import ucjax
from ucjax import names
from ucjax.errors import DiskError, UserError, printable

COMMANDS = {
    "preview": "show some photos at several strengths, before anything is written",
    "protect": "write protected copies of a folder of photos",
    "verify": "check protected files against their originals, independently",
    "survives": "measure what a platform left of the protection in files taken back from it",
    "evaluate": "measure on your photos whether the protection works",
    "compare": "put any protections and anybody's files against any victims, in one table",
    "table": "merge the tables of several runs into one ranked leaderboard",
    "plan": "say what a run will cost before it starts",
    "report": "write the report of a run's folder again",
    "export": "hand protected files to other ecosystems, byte for byte",
    "doctor": "describe this installation, to be pasted into a bug report",
    "help": "explain a word of the tables and pages",
    "completion": "print what makes your shell complete these commands",
}
TASKS = """\
ucjax {version}: protect images from unauthorised training, and measure whether it holds.

I have photographs:
  ucjax protect PHOTOS OUT             write protected copies
  ucjax verify OUT --against PHOTOS    check them, independently
  ucjax evaluate PHOTOS OUT            does it work on my photos?

I do research:
  ucjax compare CLEAN --protections clean random uc --victims resnet18
  python -m ucjax.main --config=configs/quickstart.py

I have a question:
  ucjax --help            all commands
  ucjax help              the words that they use
  ucjax doctor            what is installed here"""
EPILOG = """exit codes: 0 all is well · 1 a check did not pass, or could not write · 2 bad input
            3 done, with exceptions (some pictures could not be protected) · 130 interrupted
any key of the configuration can be set where --config is listed: --config.noise.epochs=10"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `ucjax` with the given or the process's arguments; returns the exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    if not given:
        print(TASKS.format(version=ucjax.__version__))
        return 0
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
      UserError: what was given is not understood; names what is near.
      SystemExit: after help.
    """
    parser, commands = build(given)
    word = next((word for word in given if not word.startswith("-")), None)
    if word is not None:
        names.known(word, COMMANDS, "command")
    _check_options(given, commands[word] if word else parser)
    arguments, rest = parser.parse_known_args(given)
    arguments.overrides = [value for value in rest if value.startswith("--config.")]
    if unknown := [value for value in rest if value not in arguments.overrides]:
        raise UserError(f"unexpected argument {unknown[0]!r}: see ucjax {arguments.command} --help")
    return arguments


def build(
    wanted: Iterable[str] = tuple(COMMANDS),
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Returns the parser and those of all commands; only the wanted ones have their arguments."""
    form = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="ucjax", description=ucjax.__doc__, epilog=EPILOG, formatter_class=form)
    parser.add_argument("--version", action="version", version=f"ucjax {ucjax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    found: dict[str, argparse.ArgumentParser] = {}
    for name, summary in COMMANDS.items():
        described = f"{summary[0].upper()}{summary[1:]}."
        found[name] = commands.add_parser(
            name, help=summary, description=described, epilog=EPILOG, formatter_class=form
        )
        if name in wanted:  # modules of the other commands are not imported
            importlib.import_module(f"ucjax.cli.{name}").add_arguments(found[name])
    return parser, found


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print in two lines; its sub-commands do so too."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see {self.prog} --help")


def _check_options(given: Sequence[str], command: argparse.ArgumentParser) -> None:
    """Refuses options that are none, before argparse complains of those that then are missing."""
    known = [*re.findall(r"--[\w-]+", command.format_usage()), "--help"]
    for word in itertools.takewhile(lambda word: word != "--", given):
        flag = word.partition("=")[0]
        setting = flag.startswith("--config.") and "--config" in known
        # argparse takes the beginning of an option for the option.
        if flag.startswith("--") and not setting and not any(x.startswith(flag) for x in known):
            near = names.near(flag, known)
            hint = f"did you mean {near}?" if near else f"see {command.prog} --help"
            raise UserError(f"unexpected argument {word!r}: {hint}")


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
