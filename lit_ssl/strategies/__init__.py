"""Trainer strategies that communicate less than DDP."""
