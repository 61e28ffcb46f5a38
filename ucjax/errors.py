"""What a user did wrong, which is reported rather than raised through."""


class UserError(Exception):
    """Bad input, reported as one line: what, where, both numbers, and the cure.

    Both commands, `ucjax` and `python -m ucjax.main`, print the message without a stack trace and
    exit with code 2.
    """


class StaleError(UserError):
    """A folder holds what was made from other images or settings than those asked for."""


class DiskError(UserError):
    """The disk is full, or a place cannot be written to: exit code 1, and the same command goes on.

    Nothing is wrong with what was asked for.
    """


def printable(text: str) -> str:
    """Returns a name on one line, as a terminal can show it; file names may hold anything."""
    shown = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
