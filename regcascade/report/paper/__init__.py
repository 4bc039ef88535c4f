"""The papers' tables beside one's own runs."""
