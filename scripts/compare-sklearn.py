#!/usr/bin/env python3
"""A frostbert classification run beside scikit-learn's LogisticRegression on the same states and the same split.

    python scripts/compare-sklearn.py RUN_DIR... [--root DIR] [--within POINTS] [--json]

Reads the run's lock.json, predictions.parquet and metrics.json, and the states from the cache that the lock names (relative
to --root, the folder that frostbert ran in). scikit-learn is fitted on the training part, on the states as they are and
standardised with the mean and deviation of train + validation (as frostbert's heads are), with C from 10^-3 to 10^3; the
setting with the best validation accuracy is the one whose test accuracy is shown. With --within, the exit code is 1 where
frostbert is more than so many points below it. Needs numpy, pyarrow and scikit-learn.
"""

import argparse
import json
import os
import pathlib
import sys
import time
import warnings

# One thread: with several BLAS threads these small fits are slower, not faster.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

GRID = [10.0**power for power in range(-3, 4)]
PARTS = ("train", "validation", "test")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN_DIR")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("."), help="the folder that frostbert ran in")
    parser.add_argument("--within", type=float, metavar="POINTS", help="fail where frostbert is further below than this")
    parser.add_argument("--json", action="store_true", help="print one JSON array in place of the table")
    arguments = parser.parse_args()

    results = [compare(run, arguments.root) for run in arguments.runs]
    print(json.dumps(results, indent=2) if arguments.json else table(results))
    low = [result["run"] for result in results if arguments.within is not None and -result["difference"] > arguments.within]
    for run in low:
        print(f"error: {run} is more than {arguments.within} points below scikit-learn", file=sys.stderr)
    return 1 if low else 0


def compare(run: pathlib.Path, root: pathlib.Path) -> dict:
    lock = json.loads((run / "lock.json").read_text())
    rows = pq.read_table(run / "predictions.parquet", columns=["key", "part", "label", "predicted"])
    keys = rows.column("key").to_pylist()
    part, label, predicted = (np.array(rows.column(name).to_pylist(), dtype=object) for name in ("part", "label", "predicted"))
    states = read_states(root / lock["cache"]["path"], view_name(lock), set(keys))
    absent = [key.hex() for key in keys if key not in states]
    if absent:
        sys.exit(f"error: {run}: the cache lacks {len(absent)} of {len(keys)} rows, the first is {absent[0]}")

    x = np.stack([states[key] for key in keys])
    at = {name: np.flatnonzero(part == name) for name in PARTS}
    if not all(len(at[name]) for name in PARTS):
        sys.exit(f"error: {run}: predictions.parquet must hold the parts {', '.join(PARTS)}; it has {sorted(set(part))}")
    y = np.unique(label, return_inverse=True)[1]

    started = time.time()
    best = max((fit for scaled in (False, True) for fit in fits(x, y, at, scaled)), key=lambda fit: fit["validation"])
    seconds = time.time() - started
    ours = float(np.mean(predicted[at["test"]] == label[at["test"]]))
    reported = test_accuracy(run)
    if reported is not None and abs(reported - ours) > 1e-9:
        print(f"warning: {run}: metrics.json says {reported:.6f}, predictions.parquet {ours:.6f}", file=sys.stderr)
    n_test = len(at["test"])
    return {
        "run": str(run),
        "name": lock.get("pipeline", {}).get("name") or run.parent.name,
        "rows": {name: len(at[name]) for name in PARTS},
        "classes": int(y.max()) + 1,
        "view": view_name(lock),
        "frostbert": ours,
        "sklearn": best["test"],
        "difference": 100 * (ours - best["test"]),
        "standard_error": 100 * (best["test"] * (1 - best["test"]) / n_test) ** 0.5,
        "sklearn_C": best["C"],
        "sklearn_standardized": best["standardized"],
        "sklearn_validation": best["validation"],
        "sklearn_seconds": seconds,
    }


def fits(x: np.ndarray, y: np.ndarray, at: dict[str, np.ndarray], scaled: bool):
    if scaled:
        known = x[np.concatenate([at["train"], at["validation"]])]
        deviation = known.std(axis=0)
        # Some features of MiniLM's last layer are constant up to rounding: they must not be blown up to unit size.
        x = (x - known.mean(axis=0)) / np.where(deviation > 1e-6, deviation, 1)
    for c in GRID:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model = LogisticRegression(C=c, max_iter=2000).fit(x[at["train"]], y[at["train"]])
        accuracy = {name: float(np.mean(model.predict(x[at[name]]) == y[at[name]])) for name in ("validation", "test")}
        if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
            print(f"note: C = {c:g} (standardised: {scaled}) stopped at max_iter", file=sys.stderr)
        yield {"C": c, "standardized": scaled, **accuracy}


def view_name(lock: dict) -> str:
    """`mean-L06`: how the cache names the file of a pooled state."""
    states = lock["states"]
    if len(states) != 1:
        sys.exit(f"error: scikit-learn has no counterpart to a mix of the states {states}")
    return states[0]


def read_states(cache: pathlib.Path, view: str, wanted: set[bytes]) -> dict[bytes, np.ndarray]:
    manifest = json.loads((cache / "manifest.json").read_text())
    states = {}
    for shard in shard_folders(cache, manifest):
        if not (shard / f"{view}.parquet").exists():
            continue  # A shard holds the states that were asked for when it was made.
        windows = pq.read_table(shard / "docs.parquet", columns=["key", "window"]).to_pylist()
        keys = [row["key"] for row in windows if row["window"] == 0]
        matrix = read_matrix(shard / f"{view}.parquet", manifest)
        if len(matrix) != len(keys):
            sys.exit(f"error: {shard}: {len(keys)} documents, {len(matrix)} states")
        states |= {key: row for key, row in zip(keys, matrix) if key in wanted}
    return states


def shard_folders(cache: pathlib.Path, manifest: dict) -> list[pathlib.Path]:
    return [cache / shard["name"] for shard in manifest["shards"]]


def read_matrix(path: pathlib.Path, manifest: dict) -> np.ndarray:
    table = pq.read_table(path, columns=["state"])
    column = table.column("state")
    if column.num_chunks == 0:
        return np.empty((0, 0), np.float32)
    width = column.type.byte_width
    kind = {"f16": "<f2", "f32": "<f4"}[manifest["dtype"]]
    rows = []
    for chunk in column.chunks:
        assert chunk.null_count == 0 and isinstance(chunk, pa.FixedSizeBinaryArray)
        data = np.frombuffer(chunk.buffers()[1], np.uint8)
        data = data[chunk.offset * width : (chunk.offset + len(chunk)) * width]
        rows.append(data.view(kind).reshape(len(chunk), -1).astype(np.float32))
    return np.concatenate(rows)


def test_accuracy(run: pathlib.Path) -> float | None:
    metrics = json.loads((run / "metrics.json").read_text())
    return metrics.get("metrics", metrics).get("test", {}).get("accuracy")


def table(results: list[dict]) -> str:
    lines = [
        "| data | classes | train / validation / test | states | frostbert | scikit-learn (C, states) | difference (points) | standard error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        scaled = "standardised" if result["sklearn_standardized"] else "as they are"
        lines.append(
            f"| {result['name']} | {result['classes']} | {' / '.join(str(result['rows'][name]) for name in PARTS)} | {result['view']} "
            f"| {100 * result['frostbert']:.2f} | {100 * result['sklearn']:.2f} ({result['sklearn_C']:g}, {scaled}) "
            f"| {result['difference']:+.2f} | {result['standard_error']:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
