"""Symbols and bytes."""
