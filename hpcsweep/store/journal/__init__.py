"""The journal: numbered segments of events, written by one driver at a time."""
