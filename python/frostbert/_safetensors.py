"""Reads the f32 tensors of a head: a length, a JSON header, and the values."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import DataError, MissingError


def read(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Reads all tensors of a file, by name."""
    hint = "`frostbert run --locked RUN` makes the run again"
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingError(f"there is no `{path}`", hint=hint, file=str(path)) from error
    try:
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        values = memoryview(raw)[8 + length :]
        tensors = {}
        for name, told in header.items():
            if name == "__metadata__":
                continue
            if told["dtype"] != "F32":
                raise ValueError(f"`{name}` is {told['dtype']}, not F32")
            start, end = told["data_offsets"]
            tensors[name] = np.frombuffer(values[start:end], "<f4").reshape(told["shape"])
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise DataError(f"`{path}` is damaged: {error}", hint=hint, file=str(path)) from error
    return tensors
