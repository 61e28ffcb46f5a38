"""Unlearnable Clusters (CVPR 2023) in JAX: protect images from unauthorised training."""

__version__ = "0.1.0"
