"""Architectures trained from scratch."""
