"""Who trains on the published files: models and their training."""
