"""Backbones that timm does not have, and the one way to any by name."""
