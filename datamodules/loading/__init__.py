"""From rows to batches: the base modules, loaders and samplers."""
