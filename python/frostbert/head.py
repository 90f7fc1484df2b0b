"""Trained heads, applied in numpy to states that are there already."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, Sequence

import numpy as np
import numpy.typing as npt

from . import _safetensors
from .cache import Batch, Cache, open
from .errors import DataError, MissingError, UsageError

Floats = npt.NDArray[np.float32]

_ERF = np.frompyfunc(math.erf, 1, 1)
_ROWS_AT_A_TIME = 4096


class Head:
    """The head of a run. `frostbert.load` reads one.

    Attributes:
        path: the folder of the run.
        task: `classification`, `multilabel`, `regression`, `tokens`, `qa` or `similarity`.
        kind: `head.kind` of the pipeline.
        labels: the label of each output.
        states: the states that it reads, such as `mean-L06`; several are given side by side, `[rows, layers x hidden]`.
        description: everything in head.json.
        tensors: everything in head.safetensors, by name.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = _run_folder(Path(path))
        try:
            self.description: dict[str, Any] = json.loads((self.path / "head.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"`{self.path}/head.json` is damaged: {error}", file=f"{self.path}/head.json") from error
        self.tensors = _safetensors.read(self.path / "head.safetensors")
        self.task = str(self.description["task"])
        self.kind = str(self.description["kind"])
        self.labels = [str(label) for label in self.description["labels"]]
        self.states = [str(state) for state in self.description["states"]]

    def __repr__(self) -> str:
        return f"frostbert.load({str(self.path)!r}): {self.task}, {self.kind}, reads {', '.join(self.states)}"

    def states_of(self, cache: Cache, keys: Any) -> Batch:
        """What the head reads of some documents of a cache: the rows of all its states, side by side.

        >>> cache, head = open("cache"), load("runs/reviews")
        >>> head.predict_proba(head.states_of(cache, [cache.key_of("a good film")])).shape
        (1, 2)
        """
        batches = [cache.ragged(keys, state) for state in self.states]
        values = batches[0].values if len(batches) == 1 else np.hstack([batch.values for batch in batches])
        return Batch(batches[0].keys, values, batches[0].offsets)

    def logits(self, states: Any, states_b: Any = None, *, offsets: Any = None) -> Floats:
        """The outputs of the head before softmax or sigmoid, `[rows, outputs]`.

        `states` are the rows of `self.states`, `[rows, hidden]`, or the `Batch` of `states_of`; for a head that
        compares two texts, `states_b` are those of the second. A head with attention pools the rows of a document
        itself: it needs a `Batch`, or rows with `offsets`, and returns a row for each document.
        """
        network = self.description["network"]
        if network is None:
            raise UsageError(f"a {self.kind} head has no outputs but the cosine", hint="call predict(states, states_b)")
        if self.task == "qa":
            raise UsageError(
                "heads of the task qa read questions and contexts together, in windows",
                hint="frostbert.predict(run, questions, contexts), or `frostbert predict`",
            )
        if "encoder_layers" in network:
            raise UsageError(
                "layers of the encoder were trained with this head (train.unfreeze), which numpy does not compute",
                hint="frostbert.predict(run, texts), or `frostbert predict`",
            )
        if isinstance(states, Batch):
            offsets = states.offsets
        pair = bool(self.description.get("pair"))
        if pair != (states_b is not None):
            needs = "the states of two texts" if pair else "the states of one text"
            raise UsageError(f"this head reads {needs}", hint="predict_proba(states, states_b)" if pair else None)
        rows = self._rows(states)
        if pair:
            rows = _pair_features(rows, self._rows(states_b), network["n_layers"])
        width = network["n_layers"] * self._n_stored(network)
        if rows.shape[1] != width:
            expected = f"{width} values a row ({', '.join(self.states)})"
            raise UsageError(f"expected {expected}, got {rows.shape[1]}", hint="several layers are given side by side")
        if network["attention"]:
            if offsets is None:
                raise UsageError("this head pools tokens by attention", hint="give it a Batch, or offsets=")
            return self._in_parts(self._attended(self._mixed(self._transformed(rows)), np.asarray(offsets)))
        parts = [self._in_parts(self._mixed(self._transformed(part))) for part in _split(rows)]
        return np.concatenate(parts)

    def predict_proba(self, states: Any, states_b: Any = None, *, offsets: Any = None) -> Floats:
        """The probability of each label, `[rows, labels]`, calibrated as `frostbert predict` does it.

        For `multilabel` each label has a probability of its own. For tagging, rows are words, and each word is looked
        at alone. Arguments are those of `logits`.

        >>> head = load("runs/reviews")
        >>> head.predict_proba(open("cache")["mean-L02"]).sum(axis=1).round(4).tolist()[:2]
        [1.0, 1.0]
        """
        if self.task not in ("classification", "multilabel", "tokens"):
            raise UsageError(f"the task {self.task} has no probabilities", hint="call predict")
        if (self.description["network"] or {}).get("crf"):
            raise UsageError(
                "a crf head gives probabilities to sequences of tags, not to tags",
                hint="`logits` are its emissions; frostbert.predict(run, texts) decodes them",
            )
        logits = self.logits(states, states_b, offsets=offsets).astype(np.float64)
        if self.task == "multilabel":
            return (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
        return _softmax(logits / float(self.description["temperature"])).astype(np.float32)

    def predict(self, states: Any, states_b: Any = None, *, offsets: Any = None) -> Any:
        """The prediction for each row: an array of labels, or of numbers; for `multilabel` a list of labels each.

        Tags are not decoded into valid sequences: `frostbert.predict` does that.

        >>> head = load("runs/reviews")
        >>> head.predict(open("cache")["mean-L02"]).shape
        (12,)
        """
        if self.kind == "cosine":
            if states_b is None:
                raise UsageError("a cosine compares two texts", hint="predict(states, states_b)")
            return _cosine(self._rows(states), self._rows(states_b))
        if self.task in ("regression", "similarity"):
            mean, deviation = self.description.get("output_scale") or (0.0, 1.0)
            return mean + deviation * self.logits(states, states_b, offsets=offsets)[:, 0].astype(np.float64)
        if self.task == "tokens":
            raise UsageError(
                "tags are decoded sentence by sentence",
                hint="frostbert.predict(run, texts); predict_proba gives each word's probabilities",
            )
        probabilities = self.predict_proba(states, states_b, offsets=offsets)
        if self.task == "multilabel":
            thresholds = np.asarray(self.description.get("thresholds") or [0.5] * len(self.labels))
            return [[self.labels[i] for i in np.flatnonzero(row >= thresholds)] for row in probabilities]
        return np.array(self.labels)[probabilities.argmax(axis=1)]

    def _rows(self, states: Any) -> Floats:
        rows = np.ascontiguousarray(states.values if isinstance(states, Batch) else states, dtype=np.float32)
        if rows.ndim != 2:
            raise UsageError(f"states are [rows, values], not of shape {rows.shape}")
        return rows

    def _n_stored(self, network: dict[str, Any]) -> int:
        """Values of a row for each layer, before the principal components."""
        components = self.tensors.get("pca.components")
        return int(network["n_features"] if components is None else components.shape[0] // network["n_layers"])

    def _transformed(self, rows: Floats) -> Floats:
        mean, deviation = self.tensors.get("scaler.mean"), self.tensors.get("scaler.deviation")
        if mean is not None and deviation is not None:
            rows = np.asarray((rows - mean) / deviation, np.float32)
        components = self.tensors.get("pca.components")
        if components is None:
            return rows
        return np.asarray((rows - self.tensors["pca.mean"]) @ components, np.float32)

    def _mixed(self, rows: Floats) -> Floats:
        weight = self.tensors.get("mix.weight")
        if weight is None:
            return rows
        shares = _softmax(weight[None, :].astype(np.float64))[0].astype(np.float32)
        mixed: Floats = np.einsum("l,nlh->nh", shares, rows.reshape(len(rows), len(shares), -1))
        return mixed

    def _attended(self, rows: Floats, offsets: npt.NDArray[Any]) -> Floats:
        scores = rows @ self.tensors["attention.query"]
        pooled = np.zeros((len(offsets) - 1, rows.shape[1]), np.float32)
        for document, (start, end) in enumerate(zip(offsets[:-1], offsets[1:])):
            if end > start:
                pooled[document] = _softmax(scores[None, start:end])[0] @ rows[start:end]
        return pooled

    def _in_parts(self, rows: Floats) -> Floats:
        """Hidden layers, and the last one."""
        network = self.description["network"]
        for index in range(len(network["hidden"])):
            prefix = f"hidden.{index}."
            out = rows @ self.tensors[prefix + "weight"].T + self.tensors[prefix + "bias"]
            if network["layer_norm"]:
                out = _layer_norm(out, self.tensors[prefix + "norm.weight"], self.tensors[prefix + "norm.bias"])
            out = _activated(out, str(network["activation"]))
            if network["skip"]:
                projection = self.tensors.get(prefix + "skip.weight")
                out = out + (rows if projection is None else rows @ projection.T)
            rows = out
        logits: Floats = rows @ self.tensors["weight"].T + self.tensors["bias"]
        return logits


def load(run: str | os.PathLike[str]) -> Head:
    """Reads the head of a run: of its folder, or of the newest finished run in a folder such as `runs/reviews`.

    >>> load("runs/reviews").labels
    ['bad', 'good']
    """
    return Head(run)


def _run_folder(path: Path) -> Path:
    if (path / "head.json").is_file():
        return path
    finished = [one.parent for one in path.glob("*/lock.json") if one.parent.name.isdigit()]
    heads = [one for one in finished if (one / "head.json").is_file()]
    if heads:
        return max(heads, key=lambda one: int(one.name))
    tasks = sorted(one.parent.name for one in path.glob("*/head.json"))
    hint = "name the folder of a run, such as runs/reviews/001"
    if tasks:
        hint = f"a run of several tasks has a head for each: name {path / tasks[0]}"
    raise MissingError(f"`{path}` has no head.json", hint=hint, file=str(path))


def _split(rows: Floats) -> Sequence[Floats]:
    return [rows[start : start + _ROWS_AT_A_TIME] for start in range(0, max(len(rows), 1), _ROWS_AT_A_TIME)]


def _pair_features(u: Floats, v: Floats, n_layers: int) -> Floats:
    """`[u, v, |u - v|, u * v]`, layer by layer."""
    if u.shape != v.shape:
        raise UsageError(f"both texts need as many rows: {u.shape} and {v.shape}")
    blocks = [np.stack([one, two, np.abs(one - two), one * two], axis=1) for one, two in _by_layer(u, v, n_layers)]
    return np.concatenate([block.reshape(len(u), -1) for block in blocks], axis=1)


def _by_layer(u: Floats, v: Floats, n_layers: int) -> list[tuple[Floats, Floats]]:
    return list(zip(np.split(u, n_layers, axis=1), np.split(v, n_layers, axis=1)))


def _softmax(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: npt.NDArray[Any] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _layer_norm(rows: Floats, gain: Floats, bias: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    normed: Floats = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(1e-5)) * gain + bias
    return normed


def _activated(rows: Floats, activation: str) -> Floats:
    if activation == "relu":
        return np.asarray(np.maximum(rows, 0), np.float32)
    if activation == "tanh":
        return np.asarray(np.tanh(rows), np.float32)
    if activation == "gelu":
        erf = np.asarray(_ERF(rows.astype(np.float64) * math.sqrt(0.5)), np.float64)
        return np.asarray(0.5 * rows * (1.0 + erf), np.float32)
    raise UsageError(f"this version does not know the activation {activation!r}", hint="pip install -U frostbert")


def _cosine(u: Floats, v: Floats) -> npt.NDArray[np.float64]:
    if u.shape != v.shape:
        raise UsageError(f"both texts need as many rows: {u.shape} and {v.shape}")
    one, two = u.astype(np.float64), v.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    cosines: npt.NDArray[np.float64] = (one * two).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines
