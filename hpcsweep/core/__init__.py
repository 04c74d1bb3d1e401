"""Pure: no files, no clock, no subprocess, no global randomness.

Nothing is imported here, so that a compute node that needs `core.events` does not pay for numpy.
"""
