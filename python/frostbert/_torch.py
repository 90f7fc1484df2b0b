"""States as a dataset of PyTorch. Imported only when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from ._shards import kind_of, missing

if TYPE_CHECKING:
    from .cache import Cache


class StateDataset(Dataset[Any]):
    """Items are tensors, or pairs of a tensor and a label: see `Cache.torch`.

    Attributes:
        keys: the document of each item, an Arrow array of 32 bytes each.
        labels: the label of each item, or `None`.
        classes: the names of the labels if they are texts: label `i` is `classes[i]`.
    """

    def __init__(self, cache: Cache, state: str, labels: Sequence[Any] | Mapping[bytes, Any] | None) -> None:
        self._is_pooled = kind_of(state) == "documents"
        self.labels: torch.Tensor | None = None
        self.classes: list[str] | None = None
        if isinstance(labels, Mapping):
            held = [key for key in cache.keys_of(state).to_pylist() if key in labels]
            if labels and not held:
                raise missing(len(labels), len(labels), next(iter(labels)), state)
            batch = cache.ragged(held, state)
            self.keys, values, self._offsets = batch.keys, batch.values, batch.offsets
            labels = [labels[key] for key in held]
        else:
            self.keys, values, self._offsets = cache.keys_of(state), cache[state], cache.offsets(state)
        self._values = torch.from_numpy(values)
        if labels is not None:
            self._set_labels(list(labels))

    def _set_labels(self, labels: list[Any]) -> None:
        if len(labels) != len(self):
            raise ValueError(f"{len(self)} documents need as many labels, not {len(labels)}")
        if any(isinstance(label, str) for label in labels):
            self.classes, numbers = (found.tolist() for found in np.unique(labels, return_inverse=True))
            labels = numbers
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, item: int) -> Any:
        if not -len(self) <= item < len(self):
            raise IndexError(f"item {item} of {len(self)}")
        item %= len(self)
        rows = self._values[self._offsets[item] : self._offsets[item + 1]]
        states = rows[0] if self._is_pooled else rows
        return states if self.labels is None else (states, self.labels[item])
