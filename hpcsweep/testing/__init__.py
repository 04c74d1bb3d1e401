"""Conformance suites for searchers, schedulers and clusters, which other packages import too."""
