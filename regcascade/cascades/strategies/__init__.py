"""Cascade strategies, a file each: how stages follow one another."""
