"""Shards in folders and object stores, read while they train."""
