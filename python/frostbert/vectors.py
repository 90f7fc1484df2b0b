"""Heads over vectors of your own: they are written to a file, and the program reads it as states."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Mapping, Sequence, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from .errors import DataError, UsageError
from .runs import Pipeline, Run, as_list, run_sweep, train

#: Vectors and the labels of their rows.
Examples = tuple[Any, Any]

#: What holds the labels of a row that may have several.
_SETS = (list, tuple, set, frozenset, np.ndarray)


def fit(
    X: Any,
    y: Any,
    *,
    validation: Examples | None = None,
    test: Examples | None = None,
    folder: str | os.PathLike[str] = "vectors",
    quiet: bool = False,
    **sections: Any,
) -> Run:
    """Trains a head on vectors of any origin, `X [rows, dimensions]`, and their labels `y [rows]`.

    `y` holds classes (texts or integers), numbers (then it is a regression), or a list of labels for each row (then
    rows can have several). Classes come back as texts. What `validation` and `test`, pairs `(X, y)`, do not give is
    split from the rows. `sections` are those of a pipeline: `head={"kind": "logistic"}`, `train={"epochs": 20}`,
    `data={"split": ...}`, `name="mine"`, `seed=7`.

    The vectors are written to a Parquet file in `folder`, named by its content, which the run's lock refers to: keep it
    as long as runs are to be replayed. Nothing is encoded, and no model is needed.

    >>> X = np.random.default_rng(7).standard_normal((60, 8)).astype("float32")
    >>> finished = fit(X, np.where(X[:, 0] > 0, "right", "left"), quiet=True, head={"kind": "lda"}, folder="fitted")
    >>> finished.head.labels, finished.head.predict_proba(X[:2]).shape
    (['left', 'right'], (2, 2))
    """
    return train(_pipeline(X, y, validation, test, folder, sections), quiet=quiet)


@overload
def sweep(pipeline: Pipeline, /, *, quiet: bool = False, **overrides: Any) -> Run: ...


@overload
def sweep(
    X: Any,
    y: Any,
    /,
    *,
    validation: Examples | None = None,
    test: Examples | None = None,
    folder: str | os.PathLike[str] = "vectors",
    quiet: bool = False,
    **sections: Any,
) -> Run: ...


def sweep(
    X: Any,
    y: Any = None,
    /,
    *,
    validation: Examples | None = None,
    test: Examples | None = None,
    folder: str | os.PathLike[str] = "vectors",
    quiet: bool = False,
    **sections: Any,
) -> Run:
    """Compares many heads: `sweep(pipeline)` over cached states, or `sweep(X, y)` over vectors of any origin.

    Of a pipeline, `sections` override values as in `frostbert.run`. Of vectors, they are the pipeline, as in
    `frostbert.fit`; `sweep={"C": [0.1, 1, 10], "folds": 5}` says what to compare. `run.best` is the winner, which is
    trained again on train and validation and saved as the run's head; `run.leaderboard` has all.

    >>> found = sweep("reviews.toml", quiet=True, head={"kind": "logistic"}, sweep={"C": [0.1, 1.0], "folds": 2})
    >>> found.leaderboard.num_rows, sorted(found.best["settings"])
    (2, ['C'])
    >>> X = np.random.default_rng(7).standard_normal((60, 8)).astype("float32")
    >>> found = sweep(X, X[:, 0] > 0, quiet=True, head={"kind": "logistic"}, sweep={"C": [0.1, 1.0], "folds": 2})
    >>> found.head.predict(X).shape
    (60,)
    """
    if y is None:
        if not isinstance(X, (str, os.PathLike, Mapping)):
            raise TypeError("sweep takes a pipeline, or vectors and their labels")
        if validation is not None or test is not None or folder != "vectors":
            raise TypeError("validation, test and folder are for vectors; a pipeline has them in its [data]")
        return run_sweep(X, quiet, sections)
    return run_sweep(_pipeline(X, y, validation, test, folder, sections), quiet, {})


def _pipeline(
    X: Any,
    y: Any,
    validation: Examples | None,
    test: Examples | None,
    folder: str | os.PathLike[str],
    sections: Mapping[str, Any],
) -> dict[str, Any]:
    refused = sorted({"model", "cache", "tasks"} & set(sections))
    if refused:
        raise UsageError(f"[{refused[0]}] has no meaning for vectors of your own", hint="leave it out")
    given = dict(sections.get("data", {}))
    sources = sorted({"train", "validation", "test"} & set(given))
    if sources:
        hint = "give validation=(X, y) and test=(X, y); data= has the other keys, such as task and split"
        raise UsageError(f"data.{sources[0]} is made of the vectors", hint=hint)
    for part, examples in (("validation", validation), ("test", test)):
        if examples is not None and not (isinstance(examples, (tuple, list)) and len(examples) == 2):
            raise TypeError(f"{part} is a pair (X, y)")
    task = given.get("task") or task_of(y)
    data = {"task": task, "train": write(X, y, folder, task)}
    if validation is not None:
        data["validation"] = write(*validation, folder, task)
    if test is not None:
        data["test"] = write(*test, folder, task)
    return {"name": "vectors", **sections, "data": {**data, **given}}


def task_of(y: Any) -> str:
    """The task that labels are for.

    >>> task_of(["a", "b"]), task_of([0, 1]), task_of([0.5, 1.5]), task_of([["a"], ["a", "b"], []])
    ('classification', 'classification', 'regression', 'multilabel')
    """
    labels = _plain(y)
    if any(isinstance(label, _SETS) for label in labels):
        return "multilabel"
    kind = np.asarray(labels).dtype.kind
    return "regression" if kind == "f" else "classification"


def write(X: Any, y: Any, folder: str | os.PathLike[str], task: str | None = None) -> dict[str, str]:
    """Writes vectors and labels to a Parquet file that is named by its content, and returns it as a source of data.

    The labels are written as those of `task`; without one, of the task that they look like.
    """
    vectors = as_vectors(X)
    labels = _labels(y, task or task_of(y))
    if len(labels) != len(vectors):
        raise DataError(f"{len(vectors)} vectors need as many labels, not {len(labels)}")
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    table = pa.table({"embedding": values, "label": labels})
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{vectors.dtype.str} {vectors.shape} {labels.type} ".encode())
    digest.update(vectors.tobytes())
    digest.update(repr(labels.to_pylist()).encode("utf-8"))
    path = Path(folder) / f"{digest.hexdigest()}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        pq.write_table(table, temporary, compression="none", use_dictionary=["label"])
        temporary.replace(path)
    return {"path": str(path), "state": "embedding", "label": "label"}


def as_vectors(X: Any) -> npt.NDArray[Any]:
    """`X` as an array `[rows, dimensions]` of f16, f32 or f64; of other numbers as f32.

    >>> as_vectors(pa.array([[1.0, 2.0], [3.0, 4.0]])).shape, as_vectors([[1, 2], [3, 4]]).dtype
    ((2, 2), dtype('float32'))
    """
    vectors = _array(X)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise DataError(f"vectors are [rows, dimensions], not of shape {vectors.shape}")
    if vectors.dtype.kind not in "fiub":
        raise DataError(f"vectors are numbers, not {vectors.dtype}")
    is_float = vectors.dtype.kind == "f" and vectors.dtype.itemsize in (2, 4, 8)
    return vectors.astype(vectors.dtype.newbyteorder("=") if is_float else np.float32, copy=False)


def _array(X: Any) -> npt.NDArray[Any]:
    """An array of what holds rows: an array, lists, a column of lists of Arrow or pandas."""
    rows: Any = X
    try:
        vectors = np.asarray(X)
        if vectors.dtype == object and vectors.ndim == 1 and len(vectors) > 0:
            rows = vectors
            vectors = np.stack([np.asarray(row) for row in rows])
        return np.ascontiguousarray(vectors)
    except ValueError as error:
        widths = [_width(row) for row in rows]
        if None in widths:
            problem = f"row {widths.index(None)} (from 0) holds lists, not only numbers"
            raise DataError(problem, hint="give each row as a flat list of numbers") from error
        odd = next((row for row, width in enumerate(widths) if width != widths[0]), None)
        if odd is None:
            raise DataError(f"vectors are [rows, dimensions] of numbers: {error}") from error
        problem = f"row {odd} (from 0) has {widths[odd]} values, the first row {widths[0]}"
        raise DataError(problem, hint="give every row as many") from error


def _width(row: Any) -> int | None:
    """The number of values in a row, or `None` if they are lists."""
    if row is None:
        return 0
    try:
        values = np.asarray(row)
    except ValueError:
        return None
    return values.size if values.ndim <= 1 else None


def _labels(y: Any, task: str) -> Any:
    labels = _plain(y, task)
    if task == "regression":
        try:
            return pa.array(np.asarray(labels, dtype=np.float64))
        except (TypeError, ValueError) as error:
            raise DataError(f"the labels of a regression are numbers: {error}") from error
    if task == "multilabel":
        return pa.array([_cell(row) for row in labels], pa.string())
    wrong = next((label for label in labels if isinstance(label, _SETS)), None)
    if wrong is not None:
        raise DataError(f"a row has one label for {task}, not {wrong!r}")
    return pa.array([str(label) for label in labels], pa.string())


def _cell(row: Any) -> str:
    """The labels of a row as the program reads them from a cell; a string is such a cell."""
    if isinstance(row, str):
        return row
    labels = [str(label) for label in (row if isinstance(row, _SETS) else [row])]
    if isinstance(row, (set, frozenset)):
        # Their order differs from process to process, and with it the name of the file.
        labels.sort()
    wrong = next((label for label in labels if "," in label), None)
    if wrong is not None:
        raise DataError(f"the label {wrong!r} holds a comma, which separates labels in a cell")
    return ",".join(labels)


def _plain(y: Any, task: str | None = None) -> Sequence[Any]:
    """Labels as a list, with one for each row; of an array of zeros and ones, the numbers of the columns with a one."""
    n_dimensions = getattr(y, "ndim", 1)
    if n_dimensions == 2 and task == "multilabel":
        marks = np.asarray(y)
        if not np.isin(marks, (0, 1)).all():
            raise DataError("an array with a column for each label holds zeros and ones")
        return [[str(column) for column in np.flatnonzero(row)] for row in marks]
    if n_dimensions != 1:
        hint = "give a label for each row, or, with data={'task': 'multilabel'}, a column of zeros and ones for each"
        raise DataError(f"labels are of one dimension, not of shape {tuple(y.shape)}", hint=hint)
    listed = as_list(y)
    for row, label in enumerate(listed):
        if any(_is_missing(one) for one in (label if isinstance(label, _SETS) else [label])):
            raise DataError(f"row {row} (from 0) has no label", hint="leave rows without a label out")
    return listed


def _is_missing(label: Any) -> bool:
    is_nan = isinstance(label, (float, np.floating)) and bool(np.isnan(label))
    return label is None or is_nan or type(label).__name__ in ("NAType", "NaTType")
