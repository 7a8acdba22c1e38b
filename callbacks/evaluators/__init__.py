"""Evaluation of a representation while it trains."""
