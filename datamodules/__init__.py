"""Data modules: official layouts on disk, one contract."""
