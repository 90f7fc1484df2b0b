"""frostbert in Python: caches of a frozen BERT's states as arrays, and the program that makes them.

    >>> import frostbert
    >>> finished = frostbert.run("reviews.toml", quiet=True)             # encodes what is new, trains, measures
    >>> cache = frostbert.open(finished.extraction.cache)
    >>> cache["mean-L02"].shape                                          # a row for each text
    (12, 32)
    >>> finished.head.predict(cache["mean-L02"])[:3].shape
    (3,)

docs/python.md has recipes for numpy, polars, DuckDB, PyTorch, datasets, cleanlab and scikit-learn. Nothing here encodes
or trains: that is done by the program `frostbert`, which is installed with this package.
"""

from .cache import Batch, Cache
from .cache import open as open
from .errors import (
    BusyError,
    DataError,
    Error,
    MissingError,
    NoSpaceError,
    UsageError,
)
from .errors import InterruptedError as InterruptedError
from .head import Head, load
from .keys import key_of
from .models import default_model
from .runs import Extraction, Run, embed, export, extract, predict, run, train
from .vectors import fit, sweep

# `open` and `InterruptedError` would hide the builtins of these names from whoever imports all.
__all__ = [
    "Batch",
    "BusyError",
    "Cache",
    "DataError",
    "Error",
    "Extraction",
    "Head",
    "MissingError",
    "NoSpaceError",
    "Run",
    "UsageError",
    "default_model",
    "embed",
    "export",
    "extract",
    "fit",
    "key_of",
    "load",
    "predict",
    "run",
    "sweep",
    "train",
]
