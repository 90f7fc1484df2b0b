"""Writes pipelines as TOML; Python's own library only reads it."""

from __future__ import annotations

import math
import os
import re
from typing import Any, Mapping

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def value(content: Any) -> str:
    """One value on one line; tables are inline.

    >>> value({"path": "a.csv", "label": 'the "label"', "C": [0.1, 1], "deep": {"skip": True}})
    '{path = "a.csv", label = "the \\\\"label\\\\"", C = [0.1, 1], deep = {skip = true}}'
    """
    if hasattr(content, "tolist"):
        # Arrays and numbers of numpy, some of which are floats too.
        return value(content.tolist())
    if isinstance(content, bool):
        return "true" if content else "false"
    if isinstance(content, (str, os.PathLike)):
        return _text(os.fspath(content))
    if isinstance(content, int):
        return str(content)
    if isinstance(content, float):
        if not math.isfinite(content):
            raise ValueError(f"{content} is no value of a pipeline")
        return repr(content)
    if isinstance(content, Mapping):
        pairs = (f"{key(name)} = {value(one)}" for name, one in content.items() if one is not None)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(content, (list, tuple, range)):
        return "[" + ", ".join(value(one) for one in content) + "]"
    raise TypeError(f"a pipeline holds texts, numbers, true, false, lists and tables, not {type(content).__name__}")


def key(name: str) -> str:
    """A key, in quotes if it needs them."""
    return name if _BARE.fullmatch(name) else _text(name)


def document(content: Mapping[str, Any]) -> str:
    """A file: plain values first, then a section for each table.

    >>> print(document({"seed": 7, "head": {"kind": "lda"}}))
    seed = 7
    <BLANKLINE>
    [head]
    kind = "lda"
    <BLANKLINE>
    """
    plain = {name: one for name, one in content.items() if not isinstance(one, Mapping) and one is not None}
    lines = [f"{key(name)} = {value(one)}" for name, one in plain.items()]
    for name, section in content.items():
        if isinstance(section, Mapping):
            lines += ["", f"[{key(name)}]"]
            lines += [f"{key(own)} = {value(one)}" for own, one in section.items() if one is not None]
    return "\n".join(lines).lstrip("\n") + "\n"


def settings(overrides: Mapping[str, Any]) -> list[str]:
    """Overrides as `--set` takes them: one for each key of a section.

    >>> settings({"seed": 7, "head": {"kind": "lda"}, "train.lr": 0.1})
    ['seed=7', 'head.kind="lda"', 'train.lr=0.1']
    """
    found = []
    for name, content in overrides.items():
        if isinstance(content, Mapping) and "." not in name:
            own = {f"{name}.{inner}": one for inner, one in content.items()}
            found += settings(own) if name == "tasks" else [f"{key}={value(one)}" for key, one in own.items()]
        else:
            found.append(f"{name}={value(content)}")
    return found


def _text(content: str) -> str:
    return '"' + "".join(map(_escaped, content)) + '"'


def _escaped(char: str) -> str:
    is_control = ord(char) < 32 or ord(char) == 127
    return _ESCAPES.get(char) or (f"\\u{ord(char):04X}" if is_control else char)
