"""From a scan to what a network sees: recipes, alignment, prepared cases."""
