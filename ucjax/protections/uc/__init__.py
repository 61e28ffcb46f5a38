"""Unlearnable Clusters (arXiv:2301.01217): one learnt noise per cluster."""
