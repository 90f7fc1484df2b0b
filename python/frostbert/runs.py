"""Calls the program, and reads the runs that it leaves."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Union

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import _program, _toml
from ._shards import States
from .cache import Cache
from .cache import open as open_cache
from .errors import MissingError, UsageError
from .head import Head, load
from .models import default_model

#: A pipeline file, or its content as nested dictionaries.
Pipeline = Union[str, "os.PathLike[str]", Mapping[str, Any]]


@dataclass(frozen=True)
class Extraction:
    """What stage 1 did.

    Attributes:
        cache: the folder of the cache.
        report: everything that `frostbert extract --json` prints: `documents`, `computed`, `reused`, `seconds`, ...
    """

    cache: Path
    report: dict[str, Any]

    def open(self) -> Cache:
        """Opens the cache."""
        return open_cache(self.cache)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        report: what the program printed about it, as documented for `--json`.
        extraction: what was encoded for it, or `None` if it was trained on states that were there.
        tasks: the run of each task, by name, if the pipeline has several; empty otherwise.
    """

    path: Path
    report: dict[str, Any] = field(repr=False, default_factory=dict)
    extraction: Extraction | None = field(repr=False, default=None)
    tasks: dict[str, Run] = field(repr=False, default_factory=dict)

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json: `train`, `validation`, `test`, each with metrics and their intervals."""
        content: dict[str, Any] = json.loads(self._read("metrics.json"))
        return content

    @property
    def settings(self) -> dict[str, Any]:
        """The pipeline of the run, with every default."""
        content: dict[str, Any] = json.loads(self._read("lock.json"))["pipeline"]
        return content

    @property
    def predictions(self) -> pa.Table:
        """predictions.parquet as an Arrow table: a row for every example of train, validation and test."""
        return pq.read_table(self._file("predictions.parquet"))

    @property
    def leaderboard(self) -> pa.Table:
        """The settings of a sweep as an Arrow table, the best first."""
        return pq.read_table(self._file("leaderboard.parquet"))

    @property
    def best(self) -> dict[str, Any]:
        """Of a sweep, the settings of the winner with its scores: `settings`, `validation`, `test`."""
        if "best" not in self.report:
            hint = "its leaderboard.csv has all settings"
            raise MissingError(f"`{self.path}` was no sweep of this session", hint=hint)
        best: dict[str, Any] = self.report["best"]
        return best

    @property
    def html(self) -> Path:
        """The report for people."""
        return self._file("report.html")

    @property
    def head(self) -> Head:
        """The trained head."""
        return load(self.path)

    def predict(self, texts: Iterable[str], text_pairs: Iterable[str] | None = None, **options: Any) -> pa.Table:
        """As `frostbert.predict` with this run."""
        return predict(self.path, texts, text_pairs, **options)

    def _file(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            hint = None
            if self.tasks:
                hint = f"it has several tasks: run.tasks[{next(iter(self.tasks))!r}]"
            raise MissingError(f"`{self.path}` has no {name}", hint=hint, file=str(path))
        return path

    def _read(self, name: str) -> str:
        return self._file(name).read_text(encoding="utf-8")


def run(pipeline: Pipeline, /, *, quiet: bool = False, **overrides: Any) -> Run:
    """Runs a pipeline from texts to a trained head: `frostbert run`.

    `overrides` take the place of values of the pipeline, section by section, as `--set` does.

    >>> finished = run("reviews.toml", quiet=True, head={"kind": "logistic", "C": 1.0}, seed=7)
    >>> sorted(finished.metrics)[-3:], finished.predictions.num_rows
    (['test', 'train', 'validation'], 12)
    """
    return _finished(_call("run", pipeline, overrides, quiet))


def extract(pipeline: Pipeline, /, *, quiet: bool = False, **overrides: Any) -> Extraction:
    """Encodes what the cache lacks, and trains nothing: `frostbert extract`.

    >>> extract("reviews.toml", quiet=True).open()["mean-L02"].shape
    (12, 32)
    """
    return _extraction(_call("extract", pipeline, overrides, quiet))


def train(pipeline: Pipeline, /, *, quiet: bool = False, **overrides: Any) -> Run:
    """Trains on states that are cached, without the model: `frostbert train`."""
    return _finished(_call("train", pipeline, overrides, quiet))


def run_sweep(pipeline: Pipeline, quiet: bool, overrides: Mapping[str, Any]) -> Run:
    return _finished(_call("sweep", pipeline, overrides, quiet))


def predict(
    run: str | os.PathLike[str],
    texts: Iterable[str],
    text_pairs: Iterable[str] | None = None,
    *,
    quiet: bool = True,
    model: str | os.PathLike[str] | None = None,
) -> pa.Table:
    """Predicts for new texts, from the texts on: an Arrow table with a row for each, in their order.

    Its columns are those of `frostbert predict --out`: for classification `label`, `confidence` and `p_<label>` of each
    label. `run` is a folder, a folder of runs (its newest is used) or a tag.

    >>> predict("runs/reviews", ["a good film", "a bad film"]).column_names
    ['label', 'confidence', 'p_bad', 'p_good']
    """
    head = _head_of(run)
    if head and any(state.startswith("column:") for state in head.states):
        raise UsageError("this run was trained on vectors, not on texts", hint="frostbert.load(run).predict(X)")
    columns = {"text": _listed(texts)}
    if text_pairs is not None:
        columns["text_pair"] = _listed(text_pairs)
    with _records(columns) as (folder, file):
        out = Path(folder) / "predictions.parquet"
        command = ["predict", os.fspath(run), file, "--format", "jsonl", "--text-column", "text", "--out", str(out)]
        if text_pairs is not None:
            command += ["--text-pair-column", "text_pair"]
        if model is not None:
            command += ["--model", os.fspath(model)]
        if head is None or head.task in ("classification", "multilabel"):
            command.append("--probabilities")
        _program.call(command, quiet=quiet)
        return pq.read_table(out, memory_map=False)


def export(
    run: str | os.PathLike[str], out: str | os.PathLike[str], *, to: str = "onnx", quiet: bool = True
) -> dict[str, Any]:
    """Writes the head of a run for other programs to the folder `out`: `frostbert export`.

    `to` is `onnx` (texts' token ids in, probabilities out, in one file), `onnx-head` (states in), `transformers`,
    `sentence-transformers` or `safetensors`. What is returned says how many rows were compared with the run, and the
    largest difference.
    """
    command = ["export", os.fspath(run), "--to", to, "--out", os.fspath(out)]
    report: dict[str, Any] = _program.call(command, quiet=quiet)
    return report


def embed(
    texts: Iterable[str],
    *,
    model: str | os.PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
    **options: Any,
) -> States:
    """The embeddings of some texts, `[texts, dimensions]`: `frostbert embed`.

    `model` is a folder; without one, `default_model()`. `options` are those of the command, such as `pooling="cls"`,
    `layer=3`, `dtype="f16"`, `prompt="query: "`, `cache="cache"`, `quantize="binary"`; `settings` are any of a
    pipeline. A text that was embedded before is read from the cache.

    >>> embed(["a good film", "a bad film"], model="tiny_bert", settings={"cache": {"max_length": 32}}).shape
    (2, 32)
    """
    if options.get("quantize") in ("int8", "uint8"):
        hint = "`frostbert embed --quantize` writes them to a file, beside the embeddings"
        raise UsageError(f"{options['quantize']} needs the ranges of its dimensions, which are not returned", hint=hint)
    listed = _listed(texts)
    if not listed:
        raise UsageError("expected texts, got an empty list")
    with _records({"text": listed}) as (folder, file):
        out = Path(folder) / "embeddings.npy"
        command = ["embed", file, "--out", str(out), "--model", os.fspath(model or default_model())]
        for name, option in options.items():
            command.append(f"--{name.replace('_', '-')}={option}")
        for setting in _toml.settings(settings or {}):
            command += ["--set", setting]
        _program.call(command, quiet=quiet)
        embeddings: States = np.load(out)
        return embeddings


def _call(command: str, pipeline: Pipeline, overrides: Mapping[str, Any], quiet: bool) -> dict[str, Any]:
    with _pipeline_file(pipeline) as path:
        settings = [word for setting in _toml.settings(overrides) for word in ("--set", setting)]
        answer: dict[str, Any] = _program.call([command, path, *settings], quiet=quiet)
        return answer


@contextmanager
def _pipeline_file(pipeline: Pipeline) -> Iterator[str]:
    if not isinstance(pipeline, Mapping):
        yield os.fspath(pipeline)
        return
    with tempfile.TemporaryDirectory(prefix="frostbert-") as folder:
        path = Path(folder) / "python.toml"
        path.write_text(_toml.document(pipeline), encoding="utf-8")
        yield str(path)


def _listed(texts: Any) -> list[str]:
    """The texts as a list, of whatever holds some: an iterator can be read only once."""
    if texts is None or isinstance(texts, (str, bytes)):
        raise TypeError(f"texts are a list of str, not {'None' if texts is None else 'one str'}")
    listed = as_list(texts)
    if any(not isinstance(text, str) for text in listed):
        raise TypeError("texts are a list of str")
    return listed


@contextmanager
def _records(columns: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Writes a file of records, one for each text."""
    if len({len(column) for column in columns.values()}) != 1:
        raise UsageError("there must be as many second texts as texts")
    with tempfile.TemporaryDirectory(prefix="frostbert-") as folder:
        path = Path(folder) / "texts.jsonl"
        with path.open("w", encoding="utf-8") as file:
            for row in zip(*columns.values()):
                file.write(json.dumps(dict(zip(columns, row))) + "\n")
        yield folder, str(path)


def as_list(values: Any) -> list[Any]:
    """A list of Python's own values, of whatever holds some: a list, an array, a column of Arrow, pandas or polars.

    >>> as_list(pa.array(["a", None])), as_list(np.array([1.5])), as_list(("a", "b"))
    (['a', None], [1.5], ['a', 'b'])
    """
    for method in ("to_pylist", "tolist"):
        if hasattr(values, method):
            found: list[Any] = getattr(values, method)()
            return found
    return list(values)


def _head_of(run: str | os.PathLike[str]) -> Head | None:
    """The head of a run, or `None` of a tag, which only the program knows."""
    try:
        return load(run)
    except MissingError:
        return None


def _extraction(report: dict[str, Any]) -> Extraction:
    return Extraction(Path(report["cache"]), report)


def _finished(answer: dict[str, Any]) -> Run:
    extracted = answer.get("extract")
    report = answer.get("train") or answer.get("sweep") or answer
    tasks = {name: Run(Path(own["run"]), own) for name, own in report.get("tasks", {}).items()}
    extraction = _extraction(extracted) if extracted and "cache" in extracted else None
    return Run(Path(report["run"]), report, extraction, tasks)

