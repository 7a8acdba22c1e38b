"""What surrounds the strategies: processes, their groups, checks and uneven data."""
