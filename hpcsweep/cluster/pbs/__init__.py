"""PBS Professional and OpenPBS as a cluster."""
