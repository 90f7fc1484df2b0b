"""Reads caches of frostbert in Python (docs/cache-format.md)."""

from .cache import Batch, Cache, open
from .keys import key_of

__all__ = ["Batch", "Cache", "key_of", "open"]
