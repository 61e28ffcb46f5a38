"""Experiments: each file is one, and its docstring says how to run it and what to expect."""
