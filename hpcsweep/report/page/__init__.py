"""Pages: what a results folder tells, as one HTML file that needs no network."""
