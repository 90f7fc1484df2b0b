#!/usr/bin/env python3
"""Does the winner's figure hold? Synthetic sweeps of heads that are really trained, and the truth about each winner.

    python scripts/simulate-selection.py [--sweeps N] [--rows N ...] [--settings N ...] [--nested]

Two classes, each a normal cloud in 32 dimensions, seen by several "layers" of unequal noise. Logistic heads (AdamW, batches
of 32, stopped early on the rows that judge them, patience 10 of 40 epochs) over a grid of layer, learning rate and weight
decay, in 5 folds. The best is trained again on all rows for the mean best epoch of its folds, and its true accuracy follows
from the clouds, as if it were measured on endless new rows; a test part of half as many rows is drawn too. For each figure:
how far it is from the truth on average, in points; how often its 95 % interval holds the truth, and how wide it is; how
often the interval for a new test part holds its score, and how wide that is.

- raw: the score of the winner's heads on their folds, and the interval over rows of leaderboard.csv;
- settings: corrected for the choice among settings alone;
- settings and epoch: what `bias_corrected` of a sweep with folds is;
- nested: nested folds (3 inner ones) with the interval over rows, with --nested;
- part: a sweep without folds, a fifth of the rows for validation; raw, and corrected as a sweep without folds is.

Needs numpy. Prints Markdown. The statistics are those of src/selection/bias_corrected.rs, written down a second time.
"""

import argparse
import math
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

N_FEATURES = 32
SIGNAL = 1.2
EPOCHS, PATIENCE, BATCH = 40, 10, 32
FOLDS, INNER = 5, 3
DRAWS, TESTS = 200, 5
LRS = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]

# Layers and weight decays of a grid of so many settings.
GRIDS = {1: (1, [0.0]), 20: (2, [0.0, 0.1]), 100: (5, [0.0, 0.01, 0.1, 1.0])}


class Grid:
    def __init__(self, n_settings: int):
        n_layers, decays = GRIDS[n_settings]
        lrs = LRS if n_settings > 1 else [1e-2]
        self.noise = np.linspace(0.3, 0.6, n_layers) if n_layers > 1 else np.array([0.3])
        self.lr = np.repeat(lrs, len(decays)).astype(np.float32)
        self.decay = np.tile(decays, len(lrs)).astype(np.float32)

    def place(self, setting: int) -> tuple[int, int]:
        return divmod(setting, len(self.lr))


class World:
    """What rows are drawn from."""

    def __init__(self, grid: Grid, rng):
        self.grid = grid
        mean = rng.standard_normal(N_FEATURES)
        self.mean = mean * SIGNAL / np.linalg.norm(mean)

    def rows(self, n: int, rng):
        """Classes, -1 or 1, and states [layers, n, features]."""
        classes = rng.choice([-1.0, 1.0], n).astype(np.float32)
        states = classes[:, None] * self.mean + rng.standard_normal((n, N_FEATURES))
        layers = [states + noise * rng.standard_normal(states.shape) for noise in self.grid.noise]
        return classes, np.stack(layers).astype(np.float32)

    def accuracy(self, weights, bias: float, layer: int) -> float:
        """Of a head on endless new rows."""
        spread = np.linalg.norm(weights) * math.sqrt(1 + self.grid.noise[layer] ** 2)
        of_class = [(weights @ self.mean + sign * bias) / spread for sign in (1, -1)]
        return sum(0.5 * (1 + math.erf(z / math.sqrt(2))) for z in of_class) / 2


def train(states, classes, sets, lr, decay, epochs, judged, rng):
    """Heads [layers, sets, features, settings] and biases after `epochs`, with their outputs on the judged rows of each set
    after every epoch."""
    shape = (states.shape[0], len(sets), N_FEATURES, len(lr))
    parameters = [np.zeros(shape, np.float32), np.zeros((*shape[:2], 1, shape[3]), np.float32)]
    moments = [(np.zeros_like(one), np.zeros_like(one)) for one in parameters]
    own, truth = states[:, sets], classes[sets]
    outputs, step = [], 0
    for _ in range(epochs):
        order = rng.permutation(sets.shape[1])
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            features, labels = own[:, :, batch], truth[None, :, batch, None]
            margins = np.clip(labels * (features @ parameters[0] + parameters[1]), -30, 30)
            slope = -labels / (1 + np.exp(margins)) / len(batch)
            gradients = [features.transpose(0, 1, 3, 2) @ slope, slope.sum(2, keepdims=True)]
            step += 1
            for place, (parameter, (first, second), gradient) in enumerate(zip(parameters, moments, gradients)):
                first += 0.1 * (gradient - first)
                second += 0.001 * (gradient**2 - second)
                if place == 0:
                    parameter *= 1 - lr * decay
                scaled = np.sqrt(second / (1 - 0.999**step)) + 1e-8
                parameter -= lr * (first / (1 - 0.9**step)) / scaled
        if judged is not None:
            outputs.append(states[:, judged] @ parameters[0] + parameters[1])
    return (*parameters, np.stack(outputs) if outputs else None)


def best_epochs(outputs, labels):
    """The epoch, from 1, that early stopping keeps: [layers, sets, settings]."""
    margins = outputs * labels[None, None, :, :, None]
    accuracy, loss = (margins > 0).mean(3), np.logaddexp(0, -margins).mean(3)
    best = np.zeros(accuracy.shape[1:], int)
    value, at_loss = np.full(best.shape, -1.0), np.full(best.shape, np.inf)
    learns = np.ones(best.shape, bool)
    for epoch in range(1, len(outputs) + 1):
        now, now_loss = accuracy[epoch - 1], loss[epoch - 1]
        better = learns & ((now > value) | ((now == value) & (now_loss < at_loss)))
        best[better], value[better], at_loss[better] = epoch, now[better], now_loss[better]
        learns &= epoch - best < PATIENCE
    return best


def right_after(outputs, labels, epochs):
    """Which rows are right after so many epochs of each head: [rows of all sets, layers x settings]."""
    right = outputs * labels[None, None, :, :, None] > 0
    own = np.take_along_axis(right, epochs[None, :, :, None, :] - 1, 0)[0]
    return own.transpose(1, 2, 0, 3).reshape(labels.size, -1).astype(np.float32)


def percentiles(values):
    return np.quantile(values, [0.025, 0.975])


def corrected(chosen, judged, winner, drawn, n_test, rng):
    """Score, interval and interval of a new test, of the choice of a draw each; as in src/selection/bias_corrected.rs."""
    out = drawn == 0
    scores = (judged[:, chosen].T * out).sum(1) / out.sum(1)
    of_winner = (judged[:, winner] * out).sum(1) / out.sum(1)
    shift = judged[:, winner].mean() - of_winner.mean()
    draws = zip(chosen, out)
    tests = [rng.choice(judged[own, setting], (TESTS, n_test)).mean(1) for setting, own in draws]
    ends = [np.minimum(percentiles(values) + shift, 1) for values in (scores, np.concatenate(tests))]
    return scores.mean() + shift, *ends


def choose(right, n_test, judged, rng):
    """The winner, its raw figure, and that corrected, by one table of judged predictions after another."""
    n_rows = len(right)
    winner = int(right.mean(0).argmax())
    drawn = np.stack([np.bincount(rng.integers(0, n_rows, n_rows), minlength=n_rows) for _ in range(DRAWS)])
    scores = drawn.astype(np.float32) @ right / n_rows
    over_rows = percentiles(scores[:, winner])
    raw = (right[:, winner].mean(), over_rows, over_rows)
    chosen = scores.argmax(1)
    return winner, [raw, *(corrected(chosen, table, winner, drawn, n_test, rng) for table in judged)]


def nested_score(grid, states, classes, parts, rng):
    """Settings chosen without each fold on folds of the others, trained on these and judged on it."""
    right = []
    for fold in parts:
        rest = np.setdiff1d(parts.ravel(), fold)
        inner = rng.permutation(rest)[: len(rest) // INNER * INNER].reshape(INNER, -1)
        sets = np.stack([np.setdiff1d(inner.ravel(), own) for own in inner])
        *_, outputs = train(states, classes, sets, grid.lr, grid.decay, EPOCHS, inner, rng)
        best = best_epochs(outputs, classes[inner])
        setting = int(right_after(outputs, classes[inner], best).mean(0).argmax())
        layer, place = grid.place(setting)
        weights, bias = refit(grid, states, classes, rest, setting, best[layer, :, place].mean(), rng)
        right.append(classes[fold] * (states[layer][fold] @ weights + bias) > 0)
    right = np.concatenate(right)
    drawn = rng.integers(0, len(right), (DRAWS, len(right)))
    over_rows = percentiles(right[drawn].mean(1))
    return right.mean(), over_rows, over_rows


def refit(grid, states, classes, rows, setting, epochs, rng):
    layer, place = grid.place(setting)
    one = slice(place, place + 1)
    weights, bias, _ = train(
        states[layer : layer + 1], classes, rows[None], grid.lr[one], grid.decay[one], int(np.rint(epochs)), None, rng
    )
    return weights[0, 0, :, 0].astype(float), float(bias[0, 0, 0, 0])


def with_folds(grid, n_rows, n_test, with_nested, rng):
    world = World(grid, rng)
    classes, states = world.rows(n_rows, rng)
    parts = rng.permutation(n_rows)[: n_rows // FOLDS * FOLDS].reshape(FOLDS, -1)
    sets = np.stack([np.setdiff1d(parts.ravel(), part) for part in parts])
    *_, outputs = train(states, classes, sets, grid.lr, grid.decay, EPOCHS, parts, rng)
    labels = classes[parts]
    best = best_epochs(outputs, labels)
    others = np.rint((best.sum(1, keepdims=True) - best) / (FOLDS - 1)).astype(int)
    right = right_after(outputs, labels, best)
    judged = [right, right_after(outputs, labels, np.maximum(others, 1))]
    winner, figures = choose(right, n_test, judged, rng)
    layer, place = grid.place(winner)
    weights, bias = refit(grid, states, classes, parts.ravel(), winner, best[layer, :, place].mean(), rng)
    if with_nested:
        figures.append(nested_score(grid, states, classes, parts, rng))
    return world.accuracy(weights, bias, layer), figures


def with_part(grid, n_rows, n_test, rng):
    world = World(grid, rng)
    classes, states = world.rows(n_rows, rng)
    order = rng.permutation(n_rows)
    part, rest = order[None, : n_rows // 5], order[None, n_rows // 5 :]
    # The outputs of every epoch are kept, the parameters are not: the winner is trained with the same batches again.
    seed = int(rng.integers(2**32))
    *_, outputs = train(states, classes, rest, grid.lr, grid.decay, EPOCHS, part, np.random.default_rng(seed))
    best = best_epochs(outputs, classes[part])
    right = right_after(outputs, classes[part], best)
    winner, figures = choose(right, n_test, [right], rng)
    layer, place = grid.place(winner)
    epochs = best[layer, 0, place]
    weights, bias = refit(grid, states, classes, rest[0], winner, epochs, np.random.default_rng(seed))
    return world.accuracy(weights, bias, layer), figures


def report(name, n_rows, n_settings, n_test, sweeps, rng):
    truths = np.array([truth for truth, _ in sweeps])
    new = rng.binomial(n_test, truths) / n_test
    for place, figure in enumerate(name):
        scores = np.array([figures[place][0] for _, figures in sweeps])
        cells = [f"{100 * (scores - truths).mean():+.2f}"]
        for ends, values in ((1, truths), (2, new)):
            low, high = np.array([figures[place][ends] for _, figures in sweeps]).T
            inside = (low - 1e-9 <= values) & (values <= high + 1e-9)
            cells += [f"{100 * inside.mean():.1f} %", f"{100 * (high - low).mean():.1f}"]
        print(f"| {n_rows} | {n_settings} | {figure} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=500)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 500, 2000])
    parser.add_argument("--settings", type=int, nargs="+", default=[1, 20, 100], choices=sorted(GRIDS))
    parser.add_argument("--nested", action="store_true")
    arguments = parser.parse_args()
    print("| rows | settings | figure | score - truth | truth inside | width | new test inside | width |")
    print("|---|---|---|---|---|---|---|---|")
    for n_rows in arguments.rows:
        for n_settings in arguments.settings:
            rng = np.random.default_rng([n_rows, n_settings])
            grid, n_test = Grid(n_settings), n_rows // 2
            sweeps = [with_folds(grid, n_rows, n_test, arguments.nested, rng) for _ in range(arguments.sweeps)]
            names = ["raw", "settings", "settings and epoch"] + ["nested"] * arguments.nested
            report(names, n_rows, n_settings, n_test, sweeps, rng)
            sweeps = [with_part(grid, n_rows, n_test, rng) for _ in range(arguments.sweeps)]
            report(["part: raw", "part: settings"], n_rows, n_settings, n_test, sweeps, rng)


if __name__ == "__main__":
    main()
