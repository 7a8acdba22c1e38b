"""Text as tensors."""
