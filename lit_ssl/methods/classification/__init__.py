"""Supervised training on labels: from scratch, fine-tuned, or on frozen features."""
