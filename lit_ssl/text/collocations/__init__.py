"""Collocations of a corpus, by pointwise mutual information."""
