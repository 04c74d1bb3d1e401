"""The report: one HTML page about a sweep, or about several. Read only."""
