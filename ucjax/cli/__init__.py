"""The command `ucjax`: one module a sub-command, with `add_arguments(parser)` and `run(arguments)`.

A sub-command imports what it needs inside `run`, so that help is there at once.
"""
