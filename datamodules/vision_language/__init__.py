"""Images with text."""
