"""The results folder: plain files, one writer each, complete or absent."""
