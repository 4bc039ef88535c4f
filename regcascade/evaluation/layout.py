"""Names in an evaluation: its files, and columns that are no measures."""

PAIRS, STAGES = "pairs.csv", "stages.csv"
SET = "set"  # a column where pairs are of several sets
FAILED = "failed"  # the column that says why a pair has failed, empty where it has not

BEFORE = "_before"
SUMMARY = "summary.json"
