"""One configuration of a sweep, run for a moment by the sweep's own driver and worker: what that shows."""
