"""A package outside of hpcsweep with a scheduler, a searcher and a cluster, found by entry points."""
