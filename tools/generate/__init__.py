"""Writes the files of the repository that come from the code; `make generate` runs all of it."""
