"""Classifiers that are robust over groups."""
