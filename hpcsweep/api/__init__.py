"""A sweep from Python: `hpcsweep.Sweep` and the objects that its spec is made of."""
