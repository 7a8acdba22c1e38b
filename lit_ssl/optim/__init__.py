"""Schedules and parameter groups."""
