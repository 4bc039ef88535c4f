"""Measures of one registered pair, units in their names."""
