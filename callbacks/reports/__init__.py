"""Reports at the end: a table on the screen, a file in the run's folder."""
