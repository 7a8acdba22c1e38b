"""Scenes of real digits, and what is said of them."""
