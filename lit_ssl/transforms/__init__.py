"""View recipes, with one engine for workers and one for the device."""
