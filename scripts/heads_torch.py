#!/usr/bin/env python3
"""The head of a frostbert run once more in PyTorch, on the same cached states, rows and split.

    python scripts/heads_torch.py RUN_DIR [--root DIR]
    python scripts/heads_torch.py RUN_DIR --time [SETTING ...]

Reads the run's lock.json (settings, cache, states) and predictions.parquet (rows, parts, targets), and the states from the
cache's own files, as docs/cache-format.md describes them. Rows are standardised by the mean and deviation of train and
validation; the head, optimiser, batches, dropout, early stopping and the rule of the best weights are those of the run;
initial weights, order and dropout are PyTorch's own draws, seeded by the run's seed. Metrics are seqeval's,
scikit-learn's, SciPy's and those of the SQuAD rules (scripts/fixtures/squad_rules.py). Prints one JSON object.

With --time the head is trained for all epochs, without early stopping, by torch.optim.AdamW, once for each setting such as
`fused-1` or `foreach-2` (how the optimiser works, threads): seconds of the loop over the epochs with the validation
loss after each. The standardised rows lie in memory as f32 tensors before that.

Understands linear heads over one layer (of pooled states, pairs, words, windows of questions), `matching` and attention
pooling. Needs torch, numpy, pyarrow, blake3, scikit-learn, scipy and seqeval.
"""

import argparse
import json
import pathlib
import struct
import sys

import blake3
import numpy as np
import pyarrow.parquet as pq
import torch
import torch_loop
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).parent / "fixtures"))
import squad_rules  # noqa: E402

PARTS = ("train", "validation", "test")
TIMED = ("foreach-1", "fused-1", "foreach-2", "fused-2")
# Rows in a pass over all of them.
SCORED_SAMPLES = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, metavar="RUN_DIR")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("."), help="the folder that frostbert ran in")
    parser.add_argument("--time", nargs="*", metavar="SETTING", help="time the training; the settings to try")
    arguments = parser.parse_args()
    lock = json.loads((arguments.run / "lock.json").read_text())
    table = pq.read_table(arguments.run / "predictions.parquet")
    settings = lock["pipeline"]
    task = TASKS[settings["data"]["task"]](lock, table, Cache(arguments.root, lock))
    if settings["head"]["kind"] == "cosine":
        print(json.dumps({"test": task.cosine()}))
    elif arguments.time is None:
        torch.set_num_threads(1)
        head, best_epoch, epochs, seconds = train(task, settings, settings["train"]["early_stopping"])
        result = {"test": task.measure(head), "best_epoch": best_epoch, "epochs": epochs, "fit_seconds": seconds}
        print(json.dumps(result))
    else:
        seconds = {}
        for setting in arguments.time or TIMED:
            kind, threads = setting.split("-")
            torch.set_num_threads(int(threads))
            seconds[setting] = train(task, settings, None, kind)[3]
        print(json.dumps({"seconds": seconds}))


# --- the cache ---


class Cache:
    """States of one layer, by document key: views of the files' rows."""

    def __init__(self, root: pathlib.Path, lock: dict):
        self.folder = root / lock["cache"]["path"]
        self.manifest = json.loads((self.folder / "manifest.json").read_text())
        self.dtype = {"f16": "<f2", "f32": "<f4"}[self.manifest["dtype"]]
        states = lock["states"]
        if len(states) != 1:
            sys.exit(f"error: one layer is understood, not {states}")
        self.state = states[0]

    def documents(self, columns: list[str]) -> dict:
        """{key: (states [rows, hidden], {column: values of its rows})}; with the columns of words or tokens."""
        found = {}
        for shard in self.manifest["shards"]:
            if not any(self.state in origin["states"] for origin in shard["origins"]):
                continue
            folder = self.folder / shard["name"]
            keys = pq.read_table(folder / "docs.parquet", filters=[("window", "=", 0)])["key"].to_pylist()
            column = pq.read_table(folder / f"{self.state}.parquet")["state"].combine_chunks()
            states = np.frombuffer(column.buffers()[1], self.dtype).reshape(len(column), -1)
            if not columns:
                for key, row in zip(keys, states):
                    found.setdefault(key, (row[None], {}))
                continue
            kind = self.state.split("-")[0]
            places = pq.read_table(folder / f"{kind}.parquet", columns=["doc", *columns])
            places = {name: places[name].to_numpy() for name in places.column_names}
            starts = np.searchsorted(places["doc"], np.arange(len(keys) + 1))
            for number, key in enumerate(keys):
                rows = slice(starts[number], starts[number + 1])
                found.setdefault(key, (states[rows], {name: places[name][rows] for name in columns}))
        return found


def document_key(text: str) -> bytes:
    raw = text.encode("utf-8")
    return blake3.blake3(b"text" + struct.pack("<QQ", 1, len(raw)) + raw).digest()


# --- the tasks: rows of features, targets, a loss, metrics ---


class Task:
    """Samples of one or several rows each: `rows` [rows, features], sample i from starts[i] to starts[i + 1]."""

    def __init__(self, lock: dict, table, cache: Cache):
        self.lock, self.table, self.cache = lock, table, cache
        self.head = lock["pipeline"]["head"]
        self.parts = np.array(table["part"].to_pylist())
        self.labels = lock["labels"]["names"] if isinstance(lock["labels"], dict) else lock["labels"]
        self.pooled_by_attention = False

    def column(self, name: str) -> list:
        return self.table[name].to_pylist()

    def set_rows(self, samples: list[np.ndarray], parts: np.ndarray) -> None:
        """Keeps the samples' rows, standardised; `parts` tells the part of each sample."""
        lengths = [len(rows) for rows in samples]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.empty((starts[-1], next(rows.shape[1] for rows in samples if len(rows))), np.float32)
        for place in range(len(samples)):
            rows[starts[place] : starts[place + 1]] = samples[place]
            samples[place] = None  # Gigabytes, for the features of questions.
        if self.head["standardize"]:
            seen = np.repeat(parts != "test", lengths)
            n = seen.sum()
            mean = sum(part[keep].sum(0, dtype=np.float64) for part, keep in blocks(rows, seen)) / n
            squares = sum((((part[keep] - mean) ** 2).sum(0)) for part, keep in blocks(rows, seen))
            deviation = np.sqrt(squares / n)
            deviation[deviation < 1e-6] = 1
            mean, deviation = mean.astype(np.float32), deviation.astype(np.float32)
            for part, _ in blocks(rows, seen):
                part -= mean
                part /= deviation
        self.lengths = lengths
        self.rows = torch.from_numpy(rows)
        self.samples = self.rows.split(lengths)
        self.at = {part: np.flatnonzero(parts == part) for part in PARTS}
        self.single = all(length == 1 for length in lengths)

    def batch(self, places: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
        """The rows of some samples, and how many each has."""
        if self.single:
            return self.rows[places], []
        places = places.tolist()
        return torch.cat([self.samples[place] for place in places]), [self.lengths[place] for place in places]

    def outputs(self, head, places: np.ndarray) -> list[torch.Tensor]:
        """The outputs of some samples, tile by tile."""
        with torch.no_grad():
            return [head(*self.batch(tile)) for tile in torch.from_numpy(places).split(SCORED_SAMPLES)]

    def loss_of_part(self, head, part: str) -> float:
        """The mean loss of a part, without dropout."""
        total = weight = 0.0
        with torch.no_grad():
            for tile in torch.from_numpy(self.at[part]).split(SCORED_SAMPLES):
                rows, lengths = self.batch(tile)
                n = self.weight(tile)
                total += self.loss(head(rows, lengths), tile, lengths).item() * n
                weight += n
        return total / weight

    def weight(self, places: torch.Tensor) -> int:
        return len(places)


def blocks(rows: np.ndarray, keep: np.ndarray):
    for start in range(0, len(rows), 8192):
        yield rows[start : start + 8192], keep[start : start + 8192]


class Documents(Task):
    """A row for each text, or for each pair of texts [u, v, |u - v|, u * v]; every token's row with attention pooling."""

    def __init__(self, lock: dict, table, cache: Cache):
        super().__init__(lock, table, cache)
        self.pooled_by_attention = self.head["pooling"] == "attention"
        found = cache.documents(["position"] if self.pooled_by_attention else [])
        first = [found[key][0].astype(np.float32) for key in self.column("key")]
        if "text_pair" in table.column_names and lock["pipeline"]["data"]["pair"] == "separate":
            texts = self.column("text_pair")
            self.second = [found[document_key(text)][0].astype(np.float32) for text in texts]
            self.first = first
            first = [np.hstack([u, v, abs(u - v), u * v]) for u, v in zip(first, self.second)]
        self.set_rows(first, self.parts)
        self.single = self.single and not self.pooled_by_attention

    def classes(self) -> torch.Tensor:
        ids = {name: place for place, name in enumerate(self.labels)}
        return torch.tensor([ids[name] for name in self.column("label")])


class Classification(Documents):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.n_outputs, self.targets = len(self.labels), self.classes()

    def loss(self, logits, places, _):
        return F.cross_entropy(logits, self.targets[places])

    def measure(self, head) -> dict:
        from sklearn.metrics import accuracy_score, f1_score

        at = self.at["test"]
        predicted, truth = torch.cat(self.outputs(head, at)).argmax(1), self.targets[at]
        return {"accuracy": accuracy_score(truth, predicted), "macro_f1": f1_score(truth, predicted, average="macro")}


class Multilabel(Documents):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.n_outputs = len(self.labels)
        ids = {name: place for place, name in enumerate(self.labels)}
        self.targets = torch.zeros(len(self.parts), self.n_outputs)
        for row, names in enumerate(self.column("labels")):
            for name in filter(None, names.split(", ")):
                self.targets[row, ids[name]] = 1

    def loss(self, logits, places, _):
        return F.binary_cross_entropy_with_logits(logits, self.targets[places])

    def measure(self, head) -> dict:
        from sklearn.metrics import f1_score

        scores = {part: torch.cat(self.outputs(head, self.at[part])).sigmoid().numpy() for part in ("validation", "test")}
        truth = {part: self.targets[self.at[part]].numpy() > 0 for part in scores}
        columns = zip(truth["validation"].T, scores["validation"].T)
        predicted = scores["test"] >= np.array([best_threshold(*column) for column in columns])
        f1 = lambda average: f1_score(truth["test"], predicted, average=average, zero_division=0)
        return {"micro_f1": f1("micro"), "macro_f1": f1("macro")}


def best_threshold(truth: np.ndarray, scores: np.ndarray) -> float:
    """The threshold of the highest F1: between neighbouring scores, the nearest to a half among equals."""
    order = np.argsort(-scores, kind="stable")
    falling, hits = scores[order].astype(np.float64), np.cumsum(truth[order])
    if not truth.any():
        return 0.5
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + truth.sum())
    thresholds = (falling + np.append(falling[1:], 0)) / 2
    distinct = np.append(falling[1:] != falling[:-1], True)
    best = distinct & (f1 == f1[distinct].max())
    return min(thresholds[best], key=lambda threshold: abs(threshold - 0.5))


class Regression(Documents):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.n_outputs = 1
        self.values = np.array(self.column("value"))
        known = self.values[self.at["train"]]
        self.targets = torch.tensor((self.values - known.mean()) / known.std(), dtype=torch.float32)

    def loss(self, logits, places, _):
        return F.mse_loss(logits[:, 0], self.targets[places])

    def spearman(self, predicted) -> dict:
        from scipy.stats import pearsonr, spearmanr

        truth = self.values[self.at["test"]]
        return {"spearman": spearmanr(truth, predicted)[0], "pearson": pearsonr(truth, predicted)[0]}

    def measure(self, head) -> dict:
        return self.spearman(torch.cat(self.outputs(head, self.at["test"]))[:, 0].numpy())

    def cosine(self) -> dict:
        u, v = (torch.from_numpy(np.concatenate(rows))[self.at["test"]] for rows in (self.first, self.second))
        return self.spearman(F.cosine_similarity(u, v).numpy())


class Words(Task):
    """A row for each word that has a state; words without one count as outside."""

    def __init__(self, lock: dict, table, cache: Cache):
        super().__init__(lock, table, cache)
        found = cache.documents(["word"])
        keys, self.tags = self.column("key"), self.column("labels")
        self.words = [found[key][1]["word"] for key in keys]
        self.n_outputs = len(self.labels)
        ids = {name: place for place, name in enumerate(self.labels)}
        self.targets = [torch.tensor([ids[tags[word]] for word in words]) for tags, words in zip(self.tags, self.words)]
        self.set_rows([found[key][0] for key in keys], self.parts)
        self.at["train"] = np.array([place for place in self.at["train"] if self.lengths[place]])
        self.single = False

    def loss(self, logits, places, _):
        return F.cross_entropy(logits, torch.cat([self.targets[place] for place in places.tolist()]))

    def weight(self, places):
        return sum(self.lengths[place] for place in places.tolist())

    def measure(self, head) -> dict:
        from seqeval.metrics import f1_score
        from seqeval.scheme import IOB2

        at = self.at["test"]
        logits = torch.cat(self.outputs(head, at)).split([self.lengths[place] for place in at])
        truth, predicted = [], []
        allowed = iob2(self.labels)
        for place, own in zip(at, logits):
            words, tags = self.words[place], ["O"] * len(self.tags[place])
            first = 0
            for end in range(1, len(words) + 1):
                if end == len(words) or words[end] != words[end - 1] + 1:
                    best = decode(own[first:end].numpy(), allowed)
                    for word, tag in zip(words[first:end], best):
                        tags[word] = self.labels[tag]
                    first = end
            truth.append(self.tags[place])
            predicted.append(tags)
        right = sum(one == other for tags, own in zip(truth, predicted) for one, other in zip(tags, own))
        scores = {"token_accuracy": right / sum(map(len, truth))}
        if allowed is not None:
            scores["entity_f1_strict"] = f1_score(truth, predicted, mode="strict", scheme=IOB2)
        return scores


def iob2(labels: list[str]):
    """Which tag may follow which, as 0 and -inf, the last row being the start; None where the labels are of no scheme."""
    if not all(label == "O" or label[:2] in ("B-", "I-") for label in labels):
        return None
    may = lambda before, tag: tag[:2] != "I-" or (before[:2] in ("B-", "I-") and before[2:] == tag[2:])
    return np.array([[0.0 if may(before, tag) else -np.inf for tag in labels] for before in [*labels, "O"]])


def decode(logits: np.ndarray, allowed) -> np.ndarray:
    """The best tags of a sentence among the allowed ones."""
    if allowed is None:
        return logits.argmax(1)
    score, back = logits[0] + allowed[-1], []
    for own in logits[1:]:
        paths = score[:, None] + allowed[:-1]
        back.append(paths.argmax(0))
        score = paths.max(0) + own
    tags = [int(score.argmax())]
    for previous in reversed(back):
        tags.append(int(previous[tags[-1]]))
    return np.array(tags[::-1])


class Questions(Task):
    """A sample for each window of a question: its first token's row, then those of its context tokens."""

    def __init__(self, lock: dict, table, cache: Cache):
        super().__init__(lock, table, cache)
        found = cache.documents(["window", "char_start", "char_end", "sequence"])
        answers = answers_of(lock)
        self.n_outputs, self.offsets, self.question, targets, samples, parts = 2, [], [], [], [], []
        self.contexts, self.gold = self.column("context"), self.column("answers")
        rows = zip(self.column("key"), self.column("id"), self.parts)
        for number, (key, name, part) in enumerate(rows):
            states, places = found[key]
            if not self.gold[number]:
                sys.exit("error: questions without an answer are not understood")
            for window in np.unique(places["window"]):
                own = np.flatnonzero(places["window"] == window)
                context = own[places["sequence"][own] == 1]
                offsets = np.stack([places["char_start"][context], places["char_end"][context]], 1)
                asked = own[places["sequence"][own] == 0]
                candidates = states[np.concatenate([own[:1], context])]
                if self.head["kind"] == "matching":
                    samples.append(matching(candidates.astype(np.float32), states[asked].astype(np.float32)))
                else:
                    samples.append(candidates)
                self.offsets.append(offsets)
                self.question.append(number)
                targets.append(span_of(offsets, *answers[name]))
                parts.append(part)
        self.targets = torch.tensor(targets)
        self.question = np.array(self.question)
        self.set_rows(samples, np.array(parts))
        self.single = False

    def loss(self, logits, places, lengths):
        padded = torch.nn.utils.rnn.pad_sequence(logits.split(lengths), True, -np.inf)
        start, end = self.targets[places].T
        return (F.cross_entropy(padded[..., 0], start) + F.cross_entropy(padded[..., 1], end)) / 2

    def measure(self, head) -> dict:
        at = self.at["test"]
        outputs = torch.cat(self.outputs(head, at)).split([self.lengths[place] for place in at])
        best = {}
        for place, logits in zip(at, outputs):
            span = best_span(logits.numpy().astype(np.float64), self.head["max_answer_tokens"])
            question = self.question[place]
            if span and (question not in best or span[0] > best[question][0]):
                start, end = self.offsets[place][span[1], 0], self.offsets[place][span[2], 1]
                best[question] = (span[0], self.contexts[question][start:end])
        asked = np.unique(self.question[at])
        scores = [squad_rules.raw_scores(self.gold[one], best[one][1] if one in best else "") for one in asked]
        exact, f1 = np.mean(scores, 0)
        return {"exact_match": exact, "f1": f1}


def answers_of(lock: dict) -> dict:
    """{id: (start, end) of the first answer that stands where it says}."""
    found = {}
    for part in ("train", "validation", "test"):
        sources = lock["pipeline"]["data"].get(part) or []
        for source in sources if isinstance(sources, list) else [sources]:
            data = json.loads(pathlib.Path(source["path"]).read_text(encoding="utf-8"))["data"]
            for paragraph in (paragraph for article in data for paragraph in article["paragraphs"]):
                for question in paragraph["qas"]:
                    spans = ((a["answer_start"], a["answer_start"] + len(a["text"]), a["text"]) for a in question["answers"])
                    stands = ((s, e) for s, e, text in spans if paragraph["context"][s:e] == text)
                    found[question["id"]] = next(stands, (0, 0))
    return found


def span_of(offsets: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """The candidates of an answer; 0, 0 where the window does not hold it."""
    first, last = np.flatnonzero(offsets[:, 1] > start), np.flatnonzero(offsets[:, 0] < end)
    if not len(first) or not len(last) or first[0] > last[-1]:
        return 0, 0
    holds = offsets[first[0], 0] <= start and offsets[last[-1], 1] >= end
    return (first[0] + 1, last[-1] + 1) if holds else (0, 0)


def best_span(logits: np.ndarray, most: int):
    """(score, first, last) of the best span of at most `most` context tokens."""
    start, end = logits[1:, 0], logits[1:, 1]
    if not len(start):
        return None
    spans = ((start[: len(end) - n] + end[n:]) for n in range(min(most, len(end))))
    best = [(scores.max(), scores.argmax(), n) for n, scores in enumerate(spans)]
    score, first, n = max(best)
    return score, first, first + n


def matching(context: np.ndarray, question: np.ndarray) -> np.ndarray:
    """The features of the head `matching`: [h, h * a, h * mean q, m, means of m over 3, 9, 21 rows, maximum over 11]."""
    unit = lambda rows: rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    cosines = unit(context) @ unit(question).T
    weights = np.exp(15 * (cosines - cosines.max(1, keepdims=True)))
    aligned = weights / weights.sum(1, keepdims=True) @ question
    best = torch.from_numpy(cosines.max(1))
    near = best[1:][None, None]
    count = torch.ones_like(near)
    means = [F.avg_pool1d(near, n, 1, n // 2) / F.avg_pool1d(count, n, 1, n // 2) for n in (3, 9, 21)]
    around = torch.cat([near, *means, F.max_pool1d(near, 11, 1, 5)])[:, 0].T
    around = np.concatenate([best[:1].expand(1, 5).numpy(), around.numpy()])
    return np.hstack([context, context * aligned, context * question.mean(0), around])


TASKS = {
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": Regression,
    "similarity": Regression,
    "tokens": Words,
    "qa": Questions,
}


# --- the head and its training ---


class Head(torch.nn.Module):
    """A linear layer, over rows as they are or over samples pooled by a learned query."""

    def __init__(self, task: Task):
        super().__init__()
        n_features = task.rows.shape[1]
        self.dropout = torch.nn.Dropout(task.head["dropout"])
        self.linear = torch.nn.Linear(n_features, task.n_outputs)
        torch.nn.init.normal_(self.linear.weight, 0, 0.02)
        torch.nn.init.zeros_(self.linear.bias)
        self.query = torch.nn.Parameter(torch.randn(n_features) * 0.02) if task.pooled_by_attention else None

    def forward(self, rows, lengths):
        rows = self.dropout(rows)
        if self.query is None:
            return self.linear(rows)
        scores = torch.nn.utils.rnn.pad_sequence((rows @ self.query).split(lengths), True, -np.inf)
        padded = torch.nn.utils.rnn.pad_sequence(rows.split(lengths), True)
        return self.linear(torch.bmm(scores.softmax(1)[:, None], padded)[:, 0])


def train(task: Task, settings: dict, stopping, kind: str = "fused"):
    """The head with the best weights, their epoch, the number of epochs and the seconds of the loop over them."""
    options, head_options = settings["train"], settings["head"]
    plain = options["optimizer"] == "adamw" and options["schedule"] in ("constant", "linear") and options["warmup"] == 0
    plain = plain and not options.get("clip") and not options.get("class_weights") and not options["label_smoothing"]
    if not plain or head_options["kind"] not in ("linear", "matching") or head_options.get("pca"):
        sys.exit("error: linear and matching heads are understood, trained by adamw at a constant or falling rate")
    if stopping and stopping["metric"] != "loss":
        sys.exit("error: early stopping is understood by the loss")
    torch.manual_seed(settings["seed"])
    head = Head(task)
    optimizer = torch.optim.AdamW(
        head.parameters(),
        lr=options["lr"],
        betas=options["betas"],
        weight_decay=options["weight_decay"],
        **{kind: True},
    )
    places = torch.from_numpy(task.at["train"])

    def batches():
        return places[torch.randperm(len(places))].split(options["batch_size"])

    def loss(batch):
        rows, lengths = task.batch(batch)
        return task.loss(head(rows, lengths), batch, lengths)

    def validate():
        return -task.loss_of_part(head, "validation")

    done = torch_loop.fit(head, optimizer, options, stopping, len(places), batches, loss, validate)
    return head, done.best_epoch, done.epochs, done.seconds


if __name__ == "__main__":
    main()
