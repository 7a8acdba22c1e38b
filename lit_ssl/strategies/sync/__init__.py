"""Local steps and what is synchronised between them."""
