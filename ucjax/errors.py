"""What a user did wrong, which is reported rather than raised through."""


class UserError(Exception):
    """Bad input, reported as one line: what, where, both numbers, and the cure.

    Both commands, `ucjax` and `python -m ucjax.main`, print the message without a stack trace and
    exit with code 2.
    """


class StaleError(UserError):
    """A folder holds what was made from other images or settings than those asked for."""
