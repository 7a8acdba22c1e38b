"""Groups of rows: arithmetic, weights, and files of labels."""
