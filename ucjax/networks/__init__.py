"""Architectures that more than one part of the system trains."""
