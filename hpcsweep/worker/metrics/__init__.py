"""Metrics that a program leaves without knowing of us: in what it prints, and in files."""
