"""Health and speed of a run."""
