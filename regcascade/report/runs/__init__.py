"""Evaluated runs: which there are, what they hold, how their pairs are registered again."""
