"""The results folder: plain files, one writer each, nothing half-written.

Nothing is imported here, so that the worker loads only what it needs.
"""
