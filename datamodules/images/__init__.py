"""Data modules of images and their labels."""
