"""The loop over the epochs of a training in PyTorch, as heads_torch.py and layers_torch.py have it in common: with the
schedule, the clipping, the early stopping and the rule of the best weights of a frostbert run.

What differs is given: how batches are drawn, what their loss is, and what is measured after an epoch.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable

import torch


@dataclasses.dataclass
class Trained:
    """What came of a training, besides the model's weights."""

    best_epoch: int
    epochs: int
    seconds: float


def fit(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    options: dict,
    stopping: dict | bool | None,
    n_samples: int,
    batches: Callable[[], Iterable],
    loss: Callable[..., torch.Tensor],
    validate: Callable[[], float],
) -> Trained:
    """Trains for the epochs of `options`, the `[train]` of a run, and gives the model its best weights.

    `batches()` are those of an epoch, `loss(batch)` is to be minimised, and `validate()`, called after each epoch, is what
    `stopping` follows; higher is better. Without `stopping` the last weights stay. Seconds are those of the epochs with
    what is measured after each.
    """
    steps = math.ceil(n_samples / options["batch_size"]) * options["epochs"]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor(options, steps))
    clip = options.get("clip")
    best, best_epoch, weights = -math.inf, 0, None
    started = time.perf_counter()
    for epoch in range(1, options["epochs"] + 1):
        model.train()
        for batch in batches():
            of_batch = loss(batch)
            optimizer.zero_grad()
            of_batch.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule.step()
        model.eval()
        value = validate()
        if not stopping:
            continue
        if value > best:
            best, best_epoch, weights = value, epoch, copy.deepcopy(model.state_dict())
        elif epoch - best_epoch >= stopping["patience"]:
            break
    seconds = time.perf_counter() - started
    if weights:
        model.load_state_dict(weights)
    return Trained(best_epoch or epoch, epoch, seconds)


def factor(options: dict, steps: int) -> Callable[[int], float]:
    """The schedule's factor of a step, as docs/training.md has it."""
    rising = round(options["warmup"] * steps)
    falls = {
        "constant": lambda past: 1.0,
        "linear": lambda past: 1 - past,
        "cosine": lambda past: (1 + math.cos(math.pi * past)) / 2,
    }[options["schedule"]]

    def of(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return falls((step - rising) / max(steps - rising, 1))

    return of
