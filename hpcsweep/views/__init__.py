"""One reading of a results folder, for everything that shows or exports it. Read only."""
