"""Images: sources, the decoded cache, feeds and augmentation."""
