"""Tables, statistics and comparisons of runs."""
