"""Whether a site is fit for sweeps: checks that give findings. What runs on a compute node is `probe`."""
