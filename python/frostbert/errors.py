"""What goes wrong, as exceptions: of the program (its message, its hint, where it happened) and of this package."""

from __future__ import annotations

from typing import Any, Mapping


class Error(Exception):
    """Something failed.

    Attributes:
        kind: what the program calls it: ``failed``, ``usage``, ``data``, ``missing``, ``busy``, ``no_space`` or
            ``interrupted``. Each has a class of its own below this one.
        message: what was expected and what was found.
        hint: how to fix it, if that is known.
        file: the file in which it happened, if there is one.
        line: the line of the file, counted from 1.

    >>> str(DataError("mine.csv, line 3: expected a label, got none", hint="give it one", file="mine.csv", line=3))
    'mine.csv, line 3: expected a label, got none\\nhint: give it one'
    """

    kind = "failed"

    def __init__(
        self, message: str, *, hint: str | None = None, file: str | None = None, line: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.file = file
        self.line = line

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


class UsageError(Error):
    """A pipeline file, a setting or an argument cannot be used."""

    kind = "usage"


class DataError(Error):
    """A record is malformed, or a model, a head or a cache is damaged."""

    kind = "data"


class MissingError(Error, LookupError):
    """A file, a model, a library, a state or a row is not there."""

    kind = "missing"


class BusyError(Error):
    """Another process uses the cache, or writes the run."""

    kind = "busy"


class NoSpaceError(Error):
    """The disk is full, or too small for what is to be written."""

    kind = "no_space"


class InterruptedError(Error):
    """The program was stopped; what it had committed is kept."""

    kind = "interrupted"


_CLASSES: dict[str, type[Error]] = {
    own.kind: own for own in (Error, UsageError, DataError, MissingError, BusyError, NoSpaceError, InterruptedError)
}


def from_json(error: Mapping[str, Any]) -> Error:
    """Makes the exception of the object that the program prints as ``error`` under ``--json``.

    >>> from_json({"kind": "missing", "message": "no file `x.csv`", "hint": None, "file": "x.csv", "line": None})
    MissingError('no file `x.csv`')
    """
    cause = _CLASSES.get(str(error.get("kind")), Error)
    return cause(
        str(error.get("message")), hint=error.get("hint"), file=error.get("file"), line=error.get("line")
    )
