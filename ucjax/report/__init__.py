"""What a run found: numbers, tables, plots, one HTML page."""
