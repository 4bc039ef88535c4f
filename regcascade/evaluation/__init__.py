"""Measures of a model over pairs of scans, and the tables they go to."""
