"""Pictures from images, points and numbers: sheets, maps, overlays (Pillow and NumPy)."""
