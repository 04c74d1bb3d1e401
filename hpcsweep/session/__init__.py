"""From a spec and a folder to an open driver."""
