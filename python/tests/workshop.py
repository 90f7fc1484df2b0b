"""A folder to work in, with a tiny BERT of random weights: for the tests, and for the examples in docstrings."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Iterator

REPOSITORY = Path(__file__).resolve().parents[2]

PIPELINE = """\
name = "reviews"

[model]
path = "tiny_bert"
device = "cpu"

[data]
train = { path = "reviews.csv" }

[cache]
max_length = 32
layers = [-1]
store = ["mean", "tokens"]

[head]
pooling = "mean"

[train]
epochs = 2
"""

TEXTS = [
    ("a good film", "good"),
    ("a bad film", "bad"),
    ("the film is good", "good"),
    ("the film is bad", "bad"),
    ("a warm and good film", "good"),
    ("a cold and bad film", "bad"),
    ("warm", "good"),
    ("cold", "bad"),
    ("the film is warm", "good"),
    ("the film is cold", "bad"),
    ("very good and very warm", "good"),
    ("very bad and very cold", "bad"),
]


def fill(folder: Path) -> None:
    """Makes `reviews.csv`, `reviews.toml` and links to the tiny BERT and to ONNX Runtime."""
    lines = ["text,label", *(f"{text},{label}" for text, label in TEXTS)]
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")
    (folder / "reviews.toml").write_text(PIPELINE)
    (folder / "tiny_bert").symlink_to(REPOSITORY / "tests/fixtures/tiny_bert")
    if (REPOSITORY / "runtime").exists():
        (folder / "runtime").symlink_to(REPOSITORY / "runtime")


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A temporary folder, filled, as the current one."""
    before = os.getcwd()
    folder = Path(tempfile.mkdtemp(prefix="frostbert-"))
    try:
        fill(folder)
        os.chdir(folder)
        yield folder
    finally:
        os.chdir(before)
        shutil.rmtree(folder)
