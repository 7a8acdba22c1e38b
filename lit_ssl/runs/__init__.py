"""What runs have written, read as data: reports, configs, curves."""
