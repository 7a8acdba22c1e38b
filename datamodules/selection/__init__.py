"""Which rows: splits, subsets, long tails, lists."""
