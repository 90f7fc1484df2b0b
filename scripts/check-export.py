#!/usr/bin/env python3
"""Compares exports of a cache with the cache's own Parquet files, value by value and bit by bit.

    python scripts/check-export.py CACHE EXPORT...

CACHE is a folder <cache.dir>/<fingerprint>, each EXPORT a folder that `frostbert cache export` made of it. Arrays are read
with numpy, safetensors with safetensors, Arrow and Parquet files each with pyarrow, polars and duckdb. The cache is read
with the recipe of docs/cache-format.md, as it stands there. Needs numpy, pyarrow, polars, duckdb, safetensors (tried with
2.4, 26.0, 2.1, 2.0, 0.8).
"""

import json
import pathlib
import re
import sys

import duckdb
import numpy
import polars
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import safetensors
import safetensors.numpy

DTYPES = {"f16": "<f2", "f32": "<f4"}
ALIGNMENT = {
    "tokens": ["window", "position", "token_id", "word", "char_start", "char_end", "sequence"],
    "words": ["sequence", "word", "char_start", "char_end", "window", "position"],
}
DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "cache-format.md"


def recipe():
    """The Python of the section, without the line that names the shard."""
    section = DOCS.read_text(encoding="utf-8").split("## Reading the cache in Python\n", 1)[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1).splitlines()
    assert len(code) == 5 and code[1].startswith("shard, state, dtype = "), code
    return "\n".join([code[0], *code[2:]])


def table_of(state):
    kind = state.split("-")[0]
    return kind if kind in ALIGNMENT else "documents"


def native(cache):
    """Of each state, {key: its rows}; of each table of tokens and words, {key: its columns}."""
    manifest = json.loads((cache / "manifest.json").read_text())
    code = recipe()
    states, alignment, n_rows = {}, {"tokens": {}, "words": {}}, 0
    for shard in manifest["shards"]:
        folder = cache / shard["name"]
        documents = pyarrow.parquet.read_table(folder / "docs.parquet").to_pydict()
        tokens = {}
        for key, n_tokens in zip(documents["key"], documents["n_tokens"]):
            tokens[key] = tokens.get(key, 0) + n_tokens
        counts = {"documents": [1] * len(tokens), "tokens": list(tokens.values())}
        for table, columns in ALIGNMENT.items():
            path = folder / f"{table}.parquet"
            if path.exists():
                rows = pyarrow.parquet.read_table(path)
                rows = {name: rows[name].to_numpy() for name in ["doc", *columns]}
                counts[table] = numpy.bincount(rows["doc"], minlength=len(tokens)).tolist()
                bounds = numpy.cumsum([0, *counts[table]])
                for key, start, end in zip(tokens, bounds, bounds[1:]):
                    part = {name: rows[name][start:end] for name in columns}
                    alignment[table].setdefault(key, part)
        held = {state for origin in shard["origins"] for state in origin["states"]}
        for state in held:
            names = {"shard": str(folder), "state": state, "dtype": DTYPES[manifest["dtype"]]}
            exec(code, names)  # the recipe: keys, states
            assert names["keys"] == list(tokens), folder
            bounds = numpy.cumsum([0, *counts[table_of(state)]])
            assert names["states"].shape == (bounds[-1], manifest["hidden"]), (folder, state)
            n_rows += len(names["states"])
            own = states.setdefault(state, {})
            for key, start, end in zip(tokens, bounds, bounds[1:]):
                own.setdefault(key, names["states"][start:end])
    print(f"{cache.name}: {n_rows:,} rows of {len(states)} states read by the recipe")
    return states, alignment


def expected(states, alignment, keys, description):
    """What the columns of an export of these keys must be, as `documents.key`, `tokens.doc`, `mean-L06`."""
    columns = {"documents.key": numpy.array([key.hex() for key in keys])}
    for state in description["states"]:
        rows = numpy.concatenate([states[state][key] for key in keys])
        columns[state] = rows.astype(DTYPES[description["dtype"]])
        table = table_of(state)
        if table != "documents":
            lengths = [len(states[state][key]) for key in keys]
            columns[f"{table}.doc"] = numpy.repeat(numpy.arange(len(keys)), lengths)
            for name in ALIGNMENT[table]:
                parts = [alignment[table][key][name] for key in keys]
                columns[f"{table}.{name}"] = numpy.concatenate(parts)
    return columns


def full_name(name):
    if name == "keys":
        return "documents.key"
    return name if "." in name or "-" in name else f"documents.{name}"


def read_npy(folder):
    arrays = {}
    for path in folder.glob("*.npy"):
        arrays[full_name(path.stem)] = numpy.load(path, mmap_mode="r")
    arrays["documents.key"] = arrays["documents.key"].astype(str)
    yield "numpy", arrays


def read_safetensors(folder):
    arrays = {}
    for path in folder.glob("*.safetensors"):
        arrays |= {full_name(name): array for name, array in safetensors.numpy.load_file(path).items()}
        with safetensors.safe_open(path, "numpy") as file:
            assert "frostbert.fingerprint" in file.metadata()
    arrays["documents.key"] = numpy.array([bytes(key).hex() for key in arrays["documents.key"]])
    if "id.offsets" in arrays:
        text, offsets = bytes(arrays.pop("id.utf8")), arrays.pop("id.offsets")
        ids = [text[start:end].decode() for start, end in zip(offsets, offsets[1:])]
        arrays["documents.id"] = numpy.array(ids)
    yield "safetensors", arrays


def arrays_of(table, stem):
    """The columns of an Arrow table, whichever tool made it."""
    arrays = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if "-" in name:
            values = column.flatten().to_numpy(zero_copy_only=False)
            arrays[name] = values.reshape(len(column), -1)
        else:
            values = column.to_pylist()
            values = [value.hex() if isinstance(value, bytes) else value for value in values]
            arrays[f"{stem}.{name}"] = numpy.array(values)
    return arrays


def read_tables(folder, suffix, readers):
    for tool, read in readers.items():
        arrays = {}
        for path in sorted(folder.glob(f"*.{suffix}")):
            try:
                arrays |= arrays_of(read(path), path.stem)
            except duckdb.NotImplementedException as error:
                # Its Arrow scan has no half floats, which the documentation says; its Parquet reader has.
                assert suffix == "arrow" and json.loads((folder / "export.json").read_text())["dtype"] == "f16"
                print(f"{folder.name}: {tool} does not read it: {error}")
                break
        else:
            yield tool, arrays


def ipc_of(path):
    return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()


def duckdb_of(relation):
    return relation.to_arrow_table() if hasattr(relation, "to_arrow_table") else relation.fetch_arrow_table()


ARROW = {
    "pyarrow": ipc_of,
    "polars": lambda path: polars.read_ipc(path).to_arrow(),
    "duckdb": lambda path: duckdb_of(duckdb.from_arrow(ipc_of(path))),
}
PARQUET = {
    "pyarrow": pyarrow.parquet.read_table,
    "polars": lambda path: polars.read_parquet(path).to_arrow(),
    "duckdb": lambda path: duckdb_of(duckdb.read_parquet(str(path))),
}
READERS = {
    "npy": read_npy,
    "safetensors": read_safetensors,
    "arrow": lambda folder: read_tables(folder, "arrow", ARROW),
    "parquet-list": lambda folder: read_tables(folder, "parquet", PARQUET),
}


def same(got, want, tool):
    # DuckDB has no half floats: it gives f16 as f32, which holds every f16.
    if tool == "duckdb" and want.dtype == "<f2":
        want = want.astype("<f4")
    if want.dtype.kind == "f" and got.dtype != want.dtype:
        return False
    return numpy.array_equal(got, want)


def check(folder, states, alignment):
    description = json.loads((folder / "export.json").read_text())
    for tool, arrays in READERS[description["format"]](folder):
        keys = [bytes.fromhex(key) for key in arrays["documents.key"]]
        assert len(keys) == description["rows"]
        want = expected(states, alignment, keys, description)
        for table in ALIGNMENT:
            own = arrays.pop(f"{table}.key", None)
            if own is not None:
                documents = want[f"{table}.doc"]
                assert numpy.array_equal(own, want["documents.key"][documents]), (tool, table)
        records = {"documents.source", "documents.line", "documents.part", "documents.id"}
        assert arrays.keys() - records == want.keys(), (folder, tool, arrays.keys() ^ want.keys())
        for name, column in want.items():
            assert same(arrays[name], column, tool), f"{folder}: {tool} reads another {name}"
        for name in records & arrays.keys():
            assert len(arrays[name]) == len(keys), (folder, tool, name)
        n_values = sum(column.size for column in want.values())
        print(f"{folder.name}: {tool}: {n_values:,} values equal")


def main():
    cache, *folders = map(pathlib.Path, sys.argv[1:])
    states, alignment = native(cache)
    for folder in folders:
        check(folder, states, alignment)


if __name__ == "__main__":
    main()
