"""Finished parts of a sweep become few files."""
