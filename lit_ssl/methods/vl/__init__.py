"""Methods over images and texts."""
