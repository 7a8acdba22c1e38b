"""Packaged YAML recipes, found by their short path (`--config msn/mnist5k.yaml`)."""
