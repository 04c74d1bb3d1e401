"""What runs inside an array task: read the manifest, start each run, watch it, write its result.

Nothing is imported here, and nothing heavy below: a task starts in a fraction of a second.
"""
