"""Data sets, a file each: which scans there are, and which pairs of them."""
