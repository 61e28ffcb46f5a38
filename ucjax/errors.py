"""The one exception that is a user's mistake rather than ours."""


class UserError(Exception):
    """Bad input, reported as one line: what, where, both numbers, and the cure.

    `ucjax.main` prints the message without a stack trace and exits with code 2.
    """
