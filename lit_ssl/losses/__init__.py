"""Losses as plain torch modules and functions."""
