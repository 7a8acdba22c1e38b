"""Networks over an image and a text, and their heads."""
