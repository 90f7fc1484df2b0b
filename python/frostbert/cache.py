"""Caches: the states that a model gave for documents, read as arrays, in batches, and as Arrow."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from . import _manifest
from ._shards import Files, Part, Rows, StateFile, States, key_array, kind_of, missing, ranges
from .errors import MissingError, UsageError
from .keys import key_of

if TYPE_CHECKING:
    from ._torch import StateDataset


@dataclass(frozen=True)
class Batch:
    """Some documents with the rows of a state that each has.

    Attributes:
        keys: the documents, an Arrow array of 32 bytes each.
        values: their rows, `[rows, hidden]`, document after document.
        offsets: document `i` has the rows `offsets[i]` to `offsets[i + 1]`, `[documents + 1]`.
    """

    keys: pa.FixedSizeBinaryArray
    values: States
    offsets: Rows

    def __len__(self) -> int:
        """The number of documents."""
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[States]:
        """The rows of each document, `[rows of it, hidden]`."""
        for start, end in zip(self.offsets[:-1], self.offsets[1:]):
            yield self.values[start:end]


class Cache:
    """A cache on disk, for reading. `frostbert.open` makes one.

    While it is open, no `frostbert cache gc` removes what it may still read: close it, or use it in a `with` statement.
    The rows of a state are in the order of `keys_of(state)`, as the cache stores them; that is the order of hashes, not
    that of a data file. `rows` gives those of texts that you name.

    Attributes:
        path: the folder of the cache.
        fingerprint: the hash of everything that changes a state.
        inputs: what that hash is made of.
        hidden: the width of a state.
        dtype: the type of the stored values, `float16` or `float32`.
    """

    def __init__(self, path: str | os.PathLike[str], *, verify: bool = True) -> None:
        self.path = _manifest.find(Path(path))
        self._folder = os.open(self.path, os.O_RDONLY)
        try:
            _lock(self._folder)
            manifest = _manifest.read(self.path)
        except BaseException:
            self.close()
            raise
        _mark_as_used(self.path)
        self._files = Files(self.path, manifest, verify)
        self._parts: dict[str, list[Part]] = {}
        self.fingerprint = manifest.fingerprint
        self.inputs: dict[str, Any] = manifest.inputs
        self.hidden = manifest.hidden
        self.dtype = self._files.dtype

    def close(self) -> None:
        """Ends the reading: others may remove shards again."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def __enter__(self) -> Cache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_folder", -1) >= 0:
            self.close()

    def __repr__(self) -> str:
        return f"frostbert.open({str(self.path)!r}): {len(self)} documents, {', '.join(self.states)}"

    def __len__(self) -> int:
        """The number of documents that have any state."""
        return self._files.manifest.documents

    @property
    def states(self) -> list[str]:
        """The states that some document has, such as `mean-L06`.

        >>> open("cache").states
        ['mean-L02', 'tokens-L02']
        """
        return sorted({state for shard in self._files.manifest.shards for state in shard.states})

    def __contains__(self, state: object) -> bool:
        return state in self.states

    @property
    def keys(self) -> pa.FixedSizeBinaryArray:
        """The keys of all documents, an Arrow array of 32 bytes each, in the order of the shards.

        >>> len(open("cache").keys)
        12
        """
        arrays = [self._files.documents(shard)[0] for shard in self._files.manifest.shards]
        return pc.unique(pa.concat_arrays(arrays)) if arrays else key_array([])

    def keys_of(self, state: str) -> pa.FixedSizeBinaryArray:
        """The keys of the documents that have a state, in the order of its rows."""
        return pa.concat_arrays([part.keys for part in self._parts_of(state)])

    @staticmethod
    def key_of(text: str, text_pair: str | None = None) -> bytes:
        """The key of a text: see `frostbert.key_of`, which also knows words and prompts."""
        return key_of(text, text_pair)

    def __getitem__(self, state: str) -> States:
        """All rows of a state as an array of its own, `[rows, hidden]`, f16 or f32 as they are stored.

        A pooled state has one row a document; states of tokens and words have those of `offsets(state)`.

        >>> cache = open("cache")
        >>> cache["mean-L02"].shape, cache["mean-L02"].dtype
        ((12, 32), dtype('float16'))
        """
        parts = self._parts_of(state)
        out = np.empty((sum(int(part.offsets[-1]) for part in parts), self.hidden), self.dtype)
        start = 0
        for part in parts:
            end = start + int(part.offsets[-1])
            file = self._open(part, state)
            if part.picked is None:
                file.fill(out[start:end])
            else:
                out[start:end] = file.take(part.picked)
            start = end
        return out

    def offsets(self, state: str) -> Rows:
        """Document `i` has the rows `offsets[i]` to `offsets[i + 1]` of a state, `[documents + 1]`.

        >>> cache = open("cache")
        >>> int(cache.offsets("tokens-L02")[-1]) == len(cache["tokens-L02"])
        True
        """
        lengths = [np.diff(part.offsets) for part in self._parts_of(state)]
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths))])

    def batches(self, state: str, size: int = 1024) -> Iterator[Batch]:
        """Reads a state from its first document to its last, `size` documents at a time.

        Memory holds one row group (32 MiB) and a batch. `values` are read-only views where that is possible: copy them
        to keep or to change them.

        >>> [len(batch) for batch in open("cache").batches("tokens-L02", 5)]
        [5, 5, 2]
        """
        if size < 1:
            raise ValueError(f"a batch has at least one document, not {size}")
        self._parts_of(state)
        return self._batches(state, size)

    def _batches(self, state: str, size: int) -> Iterator[Batch]:
        waiting: list[Batch] = []
        n_waiting = 0
        for part in self._parts_of(state):
            file = self._open(part, state)
            picked = file.take(part.picked) if part.picked is not None else None
            n_documents = len(part.offsets) - 1
            first = 0
            while first < n_documents:
                last = min(n_documents, first + size - n_waiting)
                start, end = int(part.offsets[first]), int(part.offsets[last])
                values = file.rows(start, end) if picked is None else picked[start:end]
                offsets = part.offsets[first : last + 1] - start
                waiting.append(Batch(part.keys.slice(first, last - first), values, offsets))
                n_waiting += last - first
                first = last
                if n_waiting == size:
                    yield _joined(waiting)
                    waiting, n_waiting = [], 0
        if waiting:
            yield _joined(waiting)

    def rows(self, keys: Any, state: str) -> States:
        """The rows of some documents, in their order and as often as they are named: `[keys, hidden]`.

        `keys` are 32 bytes each, as `key_of(text)` returns them. The state is a pooled one; `ragged` does the same for
        states of tokens and words.

        >>> cache = open("cache")
        >>> keys = [cache.key_of(text) for text in ("a good film", "a bad film", "a good film")]
        >>> cache.rows(keys, "mean-L02").shape
        (3, 32)
        """
        if kind_of(state) != "documents":
            raise UsageError(f"a document has several rows of {state}", hint=f"cache.ragged(keys, {state!r})")
        return self.ragged(keys, state).values

    def ragged(self, keys: Any, state: str) -> Batch:
        """The rows of some documents of which each has several, in the order of `keys`.

        >>> cache = open("cache")
        >>> cache.ragged([cache.key_of("a good film")], "tokens-L02").values.shape
        (5, 32)
        """
        asked = key_array(keys)
        parts = self._parts_of(state)
        found = pc.index_in(asked, value_set=self.keys_of(state))
        if found.null_count:
            first = asked.filter(found.is_null())[0].as_py()
            raise missing(found.null_count, len(asked), first, state)
        documents = found.to_numpy().astype(np.int64)
        first_of_part = np.cumsum([0] + [len(part.keys) for part in parts])
        part_of = np.searchsorted(first_of_part, documents, side="right") - 1
        lengths = np.zeros(len(documents), np.int64)
        for number in np.unique(part_of):
            asked_of_part = part_of == number
            local = documents[asked_of_part] - first_of_part[number]
            lengths[asked_of_part] = np.diff(parts[number].offsets)[local]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        values = np.empty((int(offsets[-1]), self.hidden), self.dtype)
        for number in np.unique(part_of):
            part, asked_of_part = parts[number], part_of == number
            local = documents[asked_of_part] - first_of_part[number]
            rows = ranges(part.offsets[local], lengths[asked_of_part])
            rows = rows if part.picked is None else part.picked[rows]
            values[ranges(offsets[:-1][asked_of_part], lengths[asked_of_part])] = self._open(part, state).take(rows)
        return Batch(asked, values, offsets)

    def alignment(self, state: str) -> pa.Table:
        """What each row of a state is of, as an Arrow table with as many rows.

        Of a state of tokens: `doc` (number of the document in `keys_of(state)`), `window`, `position`, `token_id`,
        `word`, `char_start`, `char_end`, `sequence`. Of words: `doc`, `sequence`, `word`, `char_start`, `char_end`,
        `window`, `position`. Of a pooled state: `key`, and `n_tokens` and `truncated` of its first window.
        docs/cache-format.md says what they mean.

        >>> open("cache").alignment("tokens-L02").column_names[:4]
        ['doc', 'window', 'position', 'token_id']
        """
        kind, tables, n_documents = kind_of(state), [], 0
        for part in self._parts_of(state):
            shard = part.shard
            if kind == "documents":
                columns = ["key", "window", "n_tokens", "truncated"]
                table = self._files.table(shard, "docs.parquet", shard.windows, columns)
                table = table.filter(pc.equal(table["window"], 0)).drop_columns("window")
            else:
                n_rows = shard.tokens if kind == "tokens" else None
                table = self._files.table(shard, f"{kind}.parquet", n_rows)
            if part.picked is not None:
                table = table.take(pa.array(part.picked))
            if kind != "documents":
                own = np.repeat(np.arange(len(part.keys), dtype=np.int64), np.diff(part.offsets))
                table = table.set_column(table.schema.get_field_index("doc"), "doc", pa.array(own + n_documents))
            n_documents += len(part.keys)
            tables.append(table)
        return pa.concat_tables(tables)

    def to_arrow(self, *states: str, dtype: str | None = None) -> pa.Table:
        """The documents that have all of some states as an Arrow table: `key`, and a column for each state.

        A pooled state is a fixed-size list of `hidden` values, a state of tokens or words a list of those. Without
        `states`, the table has the pooled states that all documents have. `dtype="f32"` converts f16, for tools that do
        not know it.

        >>> open("cache").to_arrow("mean-L02").schema.types
        [FixedSizeBinaryType(fixed_size_binary[32]), FixedSizeListType(fixed_size_list<item: halffloat>[32])]
        """
        return self.to_reader(*states, dtype=dtype).read_all()

    def to_reader(
        self, *states: str, dtype: str | None = None, size: int = 16384
    ) -> pa.RecordBatchReader:
        """As `to_arrow`, but a `pyarrow.RecordBatchReader` of `size` documents at a time.

        >>> [batch.num_rows for batch in open("cache").to_reader("mean-L02", size=8)]
        [8, 4]
        """
        if dtype not in (None, "f16", "f32"):
            raise ValueError(f"dtype is 'f16' or 'f32', not {dtype!r}")
        as_type = self.dtype if dtype is None else np.dtype("<f2" if dtype == "f16" else "<f4")
        names = states or self._common_pooled()
        types = {state: self._arrow_type(state, as_type) for state in names}
        schema = pa.schema([("key", pa.binary(32)), *types.items()], metadata=self._metadata())

        def batches() -> Iterator[Any]:
            for batch in self._aligned(names, size):
                columns = [_arrow_column(one, types[state], as_type) for state, one in zip(names, batch)]
                yield pa.RecordBatch.from_arrays([batch[0].keys, *columns], schema=schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The stream of `to_reader()`, for whatever reads Arrow streams: polars, DuckDB, datasets, pandas."""
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def torch(
        self, state: str, labels: Sequence[Any] | Mapping[bytes, Any] | None = None
    ) -> StateDataset:
        """A state as a map-style dataset for a `torch.utils.data.DataLoader`.

        An item is the document's tensor: `[hidden]` of a pooled state, `[rows, hidden]` of others; with `labels` a pair
        of it and its label. `labels` are one for each of `keys_of(state)`, or a mapping from keys: then its documents
        alone become items. Labels that are texts become numbers, and `dataset.classes` lists them. The states are kept
        in memory.
        """
        from ._torch import StateDataset

        return StateDataset(self, state, labels)

    def _parts_of(self, state: str) -> list[Part]:
        if state in self._parts:
            return self._parts[state]
        shards = [shard for shard in self._files.manifest.shards if state in shard.states]
        if not shards:
            held = ", ".join(self.states) or "none"
            hint = f"it has {held}; `cache.store` and `cache.layers` of a pipeline say what `frostbert extract` stores"
            raise MissingError(f"`{self.path}` has no {state!r}", hint=hint, file=str(self.path))
        parts = _without_repeats([self._files.part(shard, state) for shard in shards])
        self._parts[state] = parts
        return parts

    def _open(self, part: Part, state: str) -> StateFile:
        file = self._files.state_file(part.shard, state)
        expected = int(part.offsets[-1]) if part.picked is None else file.n_rows
        if file.n_rows != expected:
            raise self._files.wrong_rows(part.shard, state, expected, file.n_rows)
        return file

    def _common_pooled(self) -> tuple[str, ...]:
        pooled = [state for state in self.states if kind_of(state) == "documents"]
        common = tuple(state for state in pooled if sum(len(part.keys) for part in self._parts_of(state)) == len(self))
        if not common:
            hint = f"name the states, as in cache.to_arrow({self.states[0]!r})" if self.states else None
            raise MissingError("no pooled state that all documents have", hint=hint, file=str(self.path))
        return common

    def _aligned(self, states: Sequence[str], size: int) -> Iterator[list[Batch]]:
        """Batches of several states of the same documents, `size` at a time."""
        keys = [self.keys_of(state) for state in states]
        if all(own.equals(keys[0]) for own in keys[1:]):
            yield from (list(batches) for batches in zip(*(self.batches(state, size) for state in states)))
            return
        common = keys[0]
        for own in keys[1:]:
            common = common.filter(pc.is_in(common, value_set=own))
        for start in range(0, len(common), size):
            chosen = common.slice(start, size)
            yield [self.ragged(chosen, state) for state in states]

    def _arrow_type(self, state: str, dtype: np.dtype[Any]) -> Any:
        vector = pa.list_(pa.float16() if dtype.itemsize == 2 else pa.float32(), self.hidden)
        return vector if kind_of(state) == "documents" else pa.large_list(vector)

    def _metadata(self) -> dict[str, str]:
        return {"frostbert.fingerprint": self.fingerprint, "frostbert.hidden": str(self.hidden)}


def open(path: str | os.PathLike[str], *, verify: bool = True) -> Cache:
    """Opens a cache for reading.

    `path` is the folder of a cache, `<cache.dir>/<fingerprint>`, or a folder of caches that holds only one. The
    manifest and the size of every file are always checked. With `verify`, the BLAKE3 of a file too, when it is first
    read.

    >>> open("cache").hidden
    32
    """
    return Cache(path, verify=verify)


def _lock(folder: int) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_SH)
    except OSError:
        # The file system knows no locks: then the program does without them too.
        pass


def _mark_as_used(folder: Path) -> None:
    """`cache prune` goes by the modification time of this file."""
    try:
        os.utime(folder / "about.json")
    except OSError:
        pass


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    lengths = np.concatenate([np.diff(batch.offsets) for batch in batches])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    keys = pa.concat_arrays([batch.keys for batch in batches])
    return Batch(keys, np.concatenate([batch.values for batch in batches]), offsets)


def _without_repeats(parts: list[Part]) -> list[Part]:
    """A document is read from the first shard that has its state."""
    every = pa.concat_arrays([part.keys for part in parts])
    if len(pc.unique(every)) == len(every):
        return parts
    firsts = np.unique(pc.index_in(every, value_set=every).to_numpy())
    kept, start = [], 0
    for part in parts:
        end = start + len(part.keys)
        own = firsts[(firsts >= start) & (firsts < end)].astype(np.int64) - start
        lengths = np.diff(part.offsets)[own]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        kept.append(Part(part.shard, part.keys.take(pa.array(own)), offsets, ranges(part.offsets[own], lengths)))
        start = end
    return kept


def _arrow_column(batch: Batch, of_type: Any, dtype: np.dtype[Any]) -> Any:
    values = np.ascontiguousarray(batch.values, dtype)
    vector = of_type if pa.types.is_fixed_size_list(of_type) else of_type.value_type
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=vector)
    if vector is of_type:
        return vectors
    return pa.LargeListArray.from_arrays(pa.array(batch.offsets), vectors, type=of_type)

