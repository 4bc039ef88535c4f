"""Read evaluated runs, and show them as figures, tables and one HTML page."""
