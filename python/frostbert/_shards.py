"""Reads the Parquet files of a cache: each is checked once, and states are read a row group at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ._manifest import Manifest, Shard
from .errors import DataError, MissingError
from .keys import hasher

States = npt.NDArray[Any]
Rows = npt.NDArray[np.int64]

KEY_BYTES = 32
#: `blake3.blake3.AUTO`.
ALL_THREADS = -1
_DAMAGE = "`frostbert cache verify --repair DIR` drops damaged shards, and the next extraction computes them again"


def kind_of(state: str) -> str:
    """`tokens` or `words` for states of several rows a document, else `documents`.

    >>> kind_of("mean-L06"), kind_of("tokens-L06")
    ('documents', 'tokens')
    """
    kind = state.split("-", 1)[0]
    return kind if kind in ("tokens", "words") else "documents"


@dataclass(frozen=True)
class Part:
    """The documents of one shard that have a state, and where their rows are."""

    shard: Shard
    #: Keys of the documents, in the order of their rows: a FixedSizeBinary array.
    keys: Any
    #: First row of each document, and the number of rows: `[documents + 1]`. The documents follow each other, unless
    #: `picked` says which rows they have.
    offsets: Rows
    #: The rows, where some documents of the shard are read from another one.
    picked: Rows | None = None


class Files:
    """The files of a cache."""

    def __init__(self, folder: Path, manifest: Manifest, verify: bool) -> None:
        self.folder = folder
        self.manifest = manifest
        self.verify = verify
        self.dtype = np.dtype("<f2" if manifest.dtype == "f16" else "<f4")
        self._checked: set[tuple[str, str]] = set()
        self._documents: dict[str, tuple[Any, Rows]] = {}
        self._lock = threading.Lock()

    def open(self, shard: Shard, name: str) -> Any:
        """Opens a Parquet file that the manifest names, over a memory map, after its size and hash were compared."""
        path = self.folder / shard.name / name
        expected_bytes, expected_hash = shard.files[name]
        try:
            got_bytes = path.stat().st_size
        except FileNotFoundError as error:
            raise DataError(f"`{path}` is missing, which the manifest names", hint=_DAMAGE, file=str(path)) from error
        if got_bytes != expected_bytes:
            raise _damage(path, f"expected {expected_bytes} bytes, as the manifest says, got {got_bytes}")
        with self._lock:
            if self.verify and (shard.name, name) not in self._checked:
                digest = hasher(max_threads=ALL_THREADS)
                digest.update_mmap(path)
                if digest.hexdigest() != expected_hash:
                    raise _damage(path, "its BLAKE3 is not the one in the manifest")
                self._checked.add((shard.name, name))
        return pq.ParquetFile(path, memory_map=True)

    def table(self, shard: Shard, name: str, n_rows: int | None, columns: list[str] | None = None) -> Any:
        """Reads a whole table, and checks its number of rows if that is known."""
        table = self.open(shard, name).read(columns=columns)
        if n_rows is not None and table.num_rows != n_rows:
            path = self.folder / shard.name / name
            raise _damage(path, f"expected {n_rows} rows, as the manifest says, got {table.num_rows}")
        return table

    def documents(self, shard: Shard) -> tuple[Any, Rows]:
        """Keys of a shard's documents, and the first token of each: `[documents + 1]`."""
        if shard.name not in self._documents:
            table = self.table(shard, "docs.parquet", shard.windows, ["key", "window", "token_start"])
            first = np.flatnonzero(table["window"].to_numpy() == 0)
            if len(first) != shard.documents:
                path = self.folder / shard.name / "docs.parquet"
                raise _damage(path, f"expected {shard.documents} documents, as the manifest says, got {len(first)}")
            keys = _one_array(table["key"]).take(pa.array(first))
            starts = table["token_start"].to_numpy()[first].astype(np.int64)
            self._documents[shard.name] = keys, np.append(starts, np.int64(shard.tokens))
        return self._documents[shard.name]

    def part(self, shard: Shard, state: str) -> Part:
        """All documents of a shard that has a state."""
        keys, token_starts = self.documents(shard)
        kind = kind_of(state)
        if kind == "documents":
            offsets = np.arange(shard.documents + 1, dtype=np.int64)
        elif kind == "tokens":
            offsets = token_starts
        else:
            documents = self.table(shard, "words.parquet", None, ["doc"])["doc"].to_numpy()
            offsets = np.searchsorted(documents, np.arange(shard.documents + 1)).astype(np.int64)
        return Part(shard, keys, offsets)

    def wrong_rows(self, shard: Shard, state: str, expected: int, got: int) -> DataError:
        """The error of a state that does not have a row for each of its documents, tokens or words."""
        return _damage(self.folder / shard.name / f"{state}.parquet", f"expected {expected} rows, got {got}")

    def state_file(self, shard: Shard, state: str) -> StateFile:
        """Opens the file of a state."""
        name = f"{state}.parquet"
        file = self.open(shard, name)
        path = self.folder / shard.name / name
        told = {key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()}
        expected = {
            "frostbert.fingerprint": self.manifest.fingerprint,
            "frostbert.dtype": self.manifest.dtype,
            "frostbert.hidden": str(self.manifest.hidden),
        }
        for key, value in expected.items():
            if told.get(key) != value:
                raise _damage(path, f"expected {key} to be {value}, got {told.get(key)}")
        width = pa.binary(self.manifest.hidden * self.dtype.itemsize)
        if file.schema_arrow.field(0).type != width:
            raise _damage(path, f"expected a column of {width}, got {file.schema_arrow.field(0).type}")
        return StateFile(file, self.manifest.hidden, self.dtype)


class StateFile:
    """The rows of one state in one shard. The row group that was read last is kept for those who read on."""

    def __init__(self, file: Any, hidden: int, dtype: np.dtype[Any]) -> None:
        self._file = file
        self._hidden = hidden
        self._dtype = dtype
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        #: First row of each row group, and the number of rows.
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._kept: tuple[int, States] | None = None

    @property
    def n_rows(self) -> int:
        return int(self.starts[-1])

    def group(self, group: int) -> States:
        """The rows of a row group, `[rows, hidden]`."""
        if self._kept is None or self._kept[0] != group:
            self._kept = None
            column = self._file.read_row_group(group, columns=["state"], use_threads=False)["state"]
            chunks = [self._values(chunk) for chunk in column.chunks]
            self._kept = group, chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
        return self._kept[1]

    def _values(self, chunk: Any) -> States:
        width = self._hidden * self._dtype.itemsize
        start = chunk.offset * width
        raw = memoryview(chunk.buffers()[1])[start : start + len(chunk) * width]
        return np.frombuffer(raw, self._dtype).reshape(len(chunk), self._hidden)

    def rows(self, start: int, end: int) -> States:
        """The rows `start..end`: a view if they are in one row group."""
        pieces = [self.group(group)[low:high] for group, low, high in self._ranges(start, end)]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty((0, self._hidden), self._dtype)

    def fill(self, out: States) -> None:
        """Copies all rows to an array of their shape."""
        for group in range(len(self.starts) - 1):
            out[self.starts[group] : self.starts[group + 1]] = self.group(group)

    def take(self, rows: Rows) -> States:
        """Copies some rows, in their order. Each row group is read once, if it holds one of them."""
        out = np.empty((len(rows), self._hidden), self._dtype)
        groups = np.searchsorted(self.starts, rows, side="right") - 1
        for group in np.unique(groups):
            of_group = np.flatnonzero(groups == group)
            out[of_group] = self.group(int(group))[rows[of_group] - self.starts[group]]
        return out

    def _ranges(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        group = int(np.searchsorted(self.starts, start, side="right")) - 1
        while start < end:
            first, last = int(self.starts[group]), int(self.starts[group + 1])
            yield group, start - first, min(end, last) - first
            start, group = last, group + 1


def ranges(starts: Rows, lengths: Rows) -> Rows:
    """All numbers of some ranges, one range after the other.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    first_of_range: Rows = np.repeat(starts - (ends - lengths), lengths)
    return np.arange(total, dtype=np.int64) + first_of_range


def key_array(keys: Any) -> Any:
    """Keys as an Arrow array of 32 bytes each."""
    if isinstance(keys, (pa.Array, pa.ChunkedArray)):
        keys = _one_array(keys) if isinstance(keys, pa.ChunkedArray) else keys
        return keys if keys.type == pa.binary(KEY_BYTES) else keys.cast(pa.binary(KEY_BYTES))
    keys = list(keys)
    if any(not isinstance(key, bytes) or len(key) != KEY_BYTES for key in keys):
        raise TypeError("keys are 32 bytes each, as frostbert.key_of(text) returns them")
    return pa.array(keys, pa.binary(KEY_BYTES))


def missing(n_missing: int, n_asked: int, first: bytes, state: str) -> MissingError:
    """The error of documents that a cache does not hold."""
    return MissingError(
        f"{n_missing} of {n_asked} documents have no {state} in this cache; the first is {first.hex()}",
        hint="extract them with `frostbert extract`, and give texts exactly as the data file holds them",
    )


def _one_array(column: Any) -> Any:
    column = column.combine_chunks()
    return column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)


def _damage(path: Path, problem: str) -> DataError:
    return DataError(f"`{path}` is damaged: {problem}", hint=_DAMAGE, file=str(path))
