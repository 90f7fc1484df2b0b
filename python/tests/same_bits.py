"""Compares what the package reads of a cache with what `frostbert cache export --to npy` wrote of it, bit by bit.

    python python/tests/same_bits.py CACHE EXPORT

All states must be those of all documents. Needs numpy, pyarrow and blake3.
"""

import sys
from pathlib import Path

import numpy as np

# The package beside this file, whatever PYTHONPATH says.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import frostbert  # noqa: E402


def expect(is_true: bool, what: str) -> None:
    if not is_true:
        sys.exit(f"error: {what}")


def same(one: np.ndarray, two: np.ndarray) -> bool:
    return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()


def main(cache: str, export: str) -> None:
    folder = Path(export)
    with frostbert.open(cache) as opened:
        keys = np.load(folder / "keys.npy")
        expect([key.decode() for key in keys] == [key.hex() for key in opened.keys.to_pylist()], "keys differ")
        expect(len(opened.states) > 0, "a cache without states")
        for state in opened.states:
            exported = np.load(folder / f"{state}.npy")
            expect(same(opened[state], exported), f"{state} differs")
            batches = list(opened.batches(state, 7))
            expect(same(np.concatenate([batch.values for batch in batches]), exported), f"batches of {state} differ")
            kind = state.split("-")[0]
            if kind not in ("tokens", "words"):
                continue
            alignment = opened.alignment(state)
            for name in alignment.column_names:
                told, expected = alignment[name].to_numpy(), np.load(folder / f"{kind}.{name}.npy")
                expect(bool((told == expected).all()) and len(told) == len(expected), f"{kind}.{name} differs")
            lengths = np.bincount(alignment["doc"].to_numpy(), minlength=len(keys))
            expect(bool((np.diff(opened.offsets(state)) == lengths).all()), f"offsets of {state} differ")
            shuffled = np.random.default_rng(7).permutation(len(keys))
            of_documents = opened.ragged([opened.keys[int(row)].as_py() for row in shuffled], state)
            starts = opened.offsets(state)
            for row, values in zip(shuffled, of_documents):
                expect(same(values, exported[starts[row] : starts[row + 1]]), f"{state} of document {row} differs")
        print(f"the same: {len(opened.states)} states of {len(keys)} documents")


if __name__ == "__main__":
    main(*sys.argv[1:])
