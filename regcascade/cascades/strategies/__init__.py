"""Cascade strategies, one per file: how stages follow one another."""
