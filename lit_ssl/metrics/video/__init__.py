"""Distances between sets of videos, and scores of them."""
