"""Shared fixtures. The package is installed (editable) by `make setup`."""
