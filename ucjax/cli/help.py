"""`ucjax help WORD`: the glossary of the pages, in the terminal."""

from __future__ import annotations

import argparse
import textwrap

from ucjax import names
from ucjax.report.glossary import GLOSSARY


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's argument."""
    parser.add_argument("word", nargs="*", metavar="WORD", help="none: list the words")


def run(arguments: argparse.Namespace) -> int:
    """Prints what a word means, or the help of the command of that name.

    Raises:
      UserError: there is no such word; names what is near.
    """
    from ucjax.cli.command import COMMANDS, build

    if not arguments.word:
        print("ucjax help WORD explains one of\n")
        print("\n".join(f"  {word}" for word in GLOSSARY))
        print(f"\nand ucjax COMMAND --help a command: {', '.join(COMMANDS)}.")
        return 0
    asked = " ".join(arguments.word).lower().replace("_", " ")
    # "PSNR, SSIM" is asked for by either word.
    words = {part.lower(): word for word in GLOSSARY for part in (*word.split(", "), word)}
    if asked in COMMANDS and asked not in words:
        build([asked])[1][asked].print_help()
        return 0
    word = words[names.known(asked, {*words, *COMMANDS}, "word")]
    print(word)
    print(textwrap.fill(GLOSSARY[word], 88, initial_indent="  ", subsequent_indent="  "))
    return 0
