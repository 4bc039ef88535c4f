"""Sampling, flows, grids and transforms, without files."""
