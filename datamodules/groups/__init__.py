"""Data modules whose rows have groups."""
