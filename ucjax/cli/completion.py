"""`ucjax completion bash`: what makes a shell complete commands, options and folders."""

from __future__ import annotations

import argparse
from pathlib import Path

SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's argument."""
    parser.add_argument(
        "shell", choices=SHELLS, help="such as bash: source <(ucjax completion bash)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the script."""
    import shtab

    from ucjax.cli.command import build

    parser, commands = build()
    for command in commands.values():
        for action in command._actions:  # argparse has no other way to its arguments
            if action.type is Path:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))
    return 0
