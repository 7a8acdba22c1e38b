"""State of a strategy in a checkpoint."""
