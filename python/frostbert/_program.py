"""Finds and calls the program."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import IO, Any, Sequence

from .errors import Error, MissingError, UsageError, from_json


def program() -> str:
    """Returns the path of the program: `FROSTBERT` if it is set, that of this Python's environment, or of the PATH."""
    named = os.environ.get("FROSTBERT")
    if named:
        return named
    for scheme in (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")):
        path = Path(sysconfig.get_path("scripts", scheme)) / "frostbert"
        if path.is_file():
            return str(path)
    found = shutil.which("frostbert")
    if found is None:
        raise MissingError(
            "the program `frostbert` is neither in this Python's environment nor on the PATH",
            hint="pip install frostbert; or name it in the environment variable FROSTBERT",
        )
    return found


def call(arguments: Sequence[str | os.PathLike[str]], *, quiet: bool = False) -> Any:
    """Runs a command with `--json`, and returns what it prints; an error becomes an exception.

    What the program tells on stderr (notes, warnings, progress) goes to `sys.stderr` unless it is to be quiet.
    """
    command = [program(), *(os.fspath(word) for word in arguments), "--json"] + (["--quiet"] if quiet else [])
    process = _started(command)
    assert process.stdout is not None and process.stderr is not None
    told: list[str] = []
    listener = threading.Thread(target=_pass_on, args=(process.stderr, told, quiet), daemon=True)
    listener.start()
    try:
        printed = process.stdout.read()
        code = process.wait()
    except BaseException:
        # Ctrl-C in a terminal reaches the program too, and a second one would end it before it has tidied up.
        if not sys.stdin or not sys.stdin.isatty():
            process.send_signal(signal.SIGINT)
        process.wait()
        raise
    finally:
        listener.join()
        process.stdout.close()
        process.stderr.close()
    try:
        answer = json.loads(printed)
    except ValueError:
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        raise from_json(answer["error"])
    if code != 0 or answer is None:
        raise Error(f"`{' '.join(command)}` ended with code {code}: {' '.join(told[-3:]) or 'it said nothing'}")
    return answer


def _started(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            errors="replace",
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"an argument of the program holds a zero byte: {error}") from error
    except OSError as error:
        hint = "pip install --force-reinstall frostbert"
        if os.environ.get("FROSTBERT"):
            hint = "the environment variable FROSTBERT names it: correct it, or unset it"
        reason = error.strerror or str(error)
        raise MissingError(f"`{command[0]}` does not start: {reason}", hint=hint, file=command[0]) from error


def _pass_on(source: IO[str], told: list[str], quiet: bool) -> None:
    for line in source:
        told.append(line.strip())
        # The message and the hint of an error are in the exception.
        if not quiet and not line.startswith(("error:", "hint:")):
            print(line, end="", file=sys.stderr)
