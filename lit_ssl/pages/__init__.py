"""HTML pages that hold all they show in one file and open offline."""
