"""Compares what checkpoints hold, bit by bit."""

from __future__ import annotations

import torch


def differences(first, second, path=""):
    """Places where two nested structures of a checkpoint differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        missing = [f"{path}/{key}" for key in first.keys() ^ second.keys()]
        both = sorted(first.keys() & second.keys(), key=str)
        return missing + [
            d for key in both for d in differences(first[key], second[key], f"{path}/{key}")
        ]
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        pairs = enumerate(zip(first, second, strict=True))
        return [d for number, pair in pairs for d in differences(*pair, f"{path}/{number}")]
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [path]
    return [] if first == second else [path]
