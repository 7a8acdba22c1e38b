"""Callbacks that evaluate, watch and draw, for any representation method."""
