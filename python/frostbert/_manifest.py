"""The manifest of a cache: what the cache is, and every file that belongs to it (docs/cache-format.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DataError, MissingError
from .keys import hasher

FORMAT_VERSION = 2

_BEFORE_CHECKSUM = ',\n  "checksum": "'
_AFTER_CHECKSUM = '"\n}'
_REPAIR = "`frostbert cache verify --repair DIR` rebuilds a manifest from the files of its cache"


@dataclass(frozen=True)
class Shard:
    """A folder of the cache, as the manifest describes it."""

    name: str
    documents: int
    windows: int
    tokens: int
    states: frozenset[str]
    #: Size and BLAKE3 of each file, by its name.
    files: dict[str, tuple[int, str]]


@dataclass(frozen=True)
class Manifest:
    """A manifest that was checked."""

    fingerprint: str
    inputs: dict[str, Any]
    model_layers: int
    hidden: int
    dtype: str
    documents: int
    tokens: int
    truncated: int
    shards: tuple[Shard, ...]


def find(path: Path) -> Path:
    """Returns the folder of a cache: `path` itself, or the only cache below it."""
    if (path / "manifest.json").is_file():
        return path
    found = sorted(one.parent for one in path.glob("*/manifest.json"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(one.name for one in found[:5]) + (", ..." if len(found) > 5 else "")
        hint = f"name one, as in frostbert.open({str(found[0])!r}); `frostbert cache ls {path}` describes them"
        raise MissingError(f"`{path}` holds {len(found)} caches ({names})", hint=hint, file=str(path))
    raise MissingError(
        f"`{path}` is no cache: it has no manifest.json",
        hint="name a folder <cache.dir>/<fingerprint>, as `frostbert cache ls` lists them",
        file=str(path),
    )


def read(folder: Path) -> Manifest:
    """Reads a manifest, and checks its checksum, its format and its fingerprint."""
    path = folder / "manifest.json"

    def refuse(problem: str, hint: str = _REPAIR) -> DataError:
        return DataError(f"`{path}`: {problem}", hint=hint, file=str(path))

    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise refuse("expected UTF-8, got other bytes") from error
    body, checksum, rest = text.rstrip("\n").rpartition(_BEFORE_CHECKSUM)
    if not checksum or not rest.endswith(_AFTER_CHECKSUM):
        raise refuse("expected a checksum as its last key, got none")
    if hasher().update(body.encode("utf-8")).hexdigest() != rest[: -len(_AFTER_CHECKSUM)]:
        raise refuse("its checksum is not that of its bytes")
    try:
        manifest = _parse(json.loads(text))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise refuse(f"it is not a manifest of format {FORMAT_VERSION} ({error})") from error
    if manifest.inputs.get("format_version") != FORMAT_VERSION:
        got = manifest.inputs.get("format_version")
        raise refuse(
            f"expected a cache of format {FORMAT_VERSION}, got format {got}",
            "use the version of this package that belongs to the program that wrote it",
        )
    compact = json.dumps(manifest.inputs, separators=(",", ":"), ensure_ascii=False)
    if hasher().update(compact.encode("utf-8")).hexdigest()[:16] != manifest.fingerprint:
        raise refuse(f"its inputs do not give its fingerprint {manifest.fingerprint}")
    return manifest


def _parse(content: dict[str, Any]) -> Manifest:
    shards = []
    for shard in content["shards"]:
        name = str(shard["name"])
        if not (name.startswith("shard-") and name[6:].isdigit()):
            raise ValueError(f"a shard called {name!r}")
        files = {str(file["name"]): (int(file["bytes"]), str(file["blake3"])) for file in shard["files"]}
        if any("/" in file for file in files):
            raise ValueError(f"a file of {name} outside of its folder")
        states = frozenset(str(state) for origin in shard["origins"] for state in origin["states"])
        documents, windows, tokens = (int(shard[key]) for key in ("documents", "windows", "tokens"))
        shards.append(Shard(name, documents, windows, tokens, states, files))
    if content["dtype"] not in ("f16", "f32"):
        raise ValueError(f"states of {content['dtype']}")
    return Manifest(
        fingerprint=str(content["fingerprint"]),
        inputs=dict(content["inputs"]),
        model_layers=int(content["model_layers"]),
        hidden=int(content["hidden"]),
        dtype=str(content["dtype"]),
        documents=int(content["documents"]),
        tokens=int(content["tokens"]),
        truncated=int(content["truncated"]),
        shards=tuple(shards),
    )
