"""`hpcsweep serve`: the sweeps below some folders in a browser, for their owner alone."""
