"""What makes noise out of images: one file a protection, one table of all."""
