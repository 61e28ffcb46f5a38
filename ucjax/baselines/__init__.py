"""Other protections, as controls."""
