"""Reads caches of frostbert in Python (docs/cache-format.md)."""
