#!/usr/bin/env python3
"""Runs an ONNX file of `frostbert export --to onnx` with nothing but onnxruntime, tokenizers and numpy, and compares it
with what `frostbert predict --json` gives for the same records.

    frostbert predict RUN FILE --json > predictions.jsonl
    python scripts/check-onnx-export.py EXPORT predictions.jsonl [--tolerance 1e-5] [--contexts FILE]

EXPORT is the exported folder. Each record is run alone, and all of them in batches of 16. Probabilities and numbers
must agree within the tolerance; with a larger one (2e-3 where cache.dtype is f16) a label may differ only where its
probability is that close to the boundary. Tags are decoded with the recipe of docs/handing-on.md, answers as it says
there. Records longer than a window are left out and counted. Tried with onnxruntime 1.32, tokenizers 0.23, numpy 2.4.
"""

import argparse
import json
import pathlib

import numpy
import onnxruntime
import tokenizers

BATCH = 16


class Exported:
    def __init__(self, folder):
        folder = pathlib.Path(folder)
        path = folder / "model.onnx"
        path = path if path.is_file() else folder / "onnx" / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.names = [output.name for output in self.session.get_outputs()]
        self.inputs = {one.name for one in self.session.get_inputs()}
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.about = self.config["frostbert"]
        self.labels = [name for _, name in sorted(
            self.config.get("id2label", {}).items(), key=lambda item: int(item[0]))]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.transitions = None
        if (folder / "transitions.npy").is_file():
            self.transitions = numpy.load(folder / "transitions.npy")

    def encode(self, record):
        """The encodings of a record: one, or the two of a pair that is encoded separately."""
        about = self.about
        if about["task"] == "qa":
            return [self.tokenizer.encode(record["question"], record["context"])]
        if about["task"] == "tokens":
            return [self.tokenizer.encode(record["words"], is_pretokenized=True)]
        if about["pair"] == "joint":
            return [self.tokenizer.encode(record["text"], record["text_pair"])]
        first = (about["prompt"] or "") + record["text"]
        if about["pair"] == "separate":
            second = (about["pair_prompt"] or "") + record["text_pair"]
            return [self.tokenizer.encode(first), self.tokenizer.encode(second)]
        return [self.tokenizer.encode(first)]

    def run(self, batch):
        """The outputs for encodings of several records, by name."""
        feeds = {}
        suffixes = ["_a", "_b"] if len(batch[0]) == 2 else [""]
        for side, suffix in enumerate(suffixes):
            own = [encodings[side] for encodings in batch]
            width = max(len(encoding.ids) for encoding in own)

            def padded(rows, value):
                rows = [list(row) + [value] * (width - len(row)) for row in rows]
                return numpy.array(rows, dtype=numpy.int64)

            feeds["input_ids" + suffix] = padded([one.ids for one in own], 0)
            feeds["attention_mask" + suffix] = padded([[1] * len(one.ids) for one in own], 0)
            if "token_type_ids" + suffix in self.inputs:
                feeds["token_type_ids" + suffix] = padded([one.type_ids for one in own], 0)
            if "sequence_ids" in self.inputs:
                sequences = [[-1 if n is None else n for n in one.sequence_ids] for one in own]
                feeds["sequence_ids"] = padded(sequences, -1)
        return dict(zip(self.names, self.session.run(self.names, feeds)))


def allowed(labels):
    """Which label may follow which, and which may begin, if the labels follow IOB2."""
    prefixes = [label.split("-", 1) for label in labels]
    everything = numpy.ones((len(labels), len(labels)), dtype=bool), numpy.ones(len(labels), dtype=bool)
    if "O" not in labels or any(len(p) != 2 or p[0] not in "BI" for p in prefixes if p != ["O"]):
        return everything
    follows, begins = everything
    for to, label in enumerate(prefixes):
        if label[0] == "I":
            begins[to] = False
            for start, other in enumerate(prefixes):
                follows[start, to] = len(other) == 2 and other[1] == label[1]
    return follows, begins


def decode(logits, labels, transitions):
    """The best sequence of labels: Viterbi, with the scores of a CRF or without."""
    follows, begins = allowed(labels)
    n = len(labels)
    scores = numpy.zeros((n + 2, n)) if transitions is None else transitions.astype(float)
    steps = numpy.where(follows, scores[:n], -numpy.inf)
    best = numpy.where(begins, scores[n], -numpy.inf) + logits[0]
    back = []
    for row in logits[1:]:
        paths = best[:, None] + steps
        back.append(paths.argmax(axis=0))
        best = paths.max(axis=0) + row
    last = int((best + scores[n + 1]).argmax())
    path = [last]
    for step in reversed(back):
        path.append(int(step[path[-1]]))
    return [labels[label] for label in reversed(path)]


def first_tokens(encoding):
    """The first token of each word, by the word's number."""
    first = {}
    for place, word in enumerate(encoding.word_ids):
        if word is not None:
            first.setdefault(word, place)
    return first


class Comparison:
    def __init__(self, tolerance):
        self.tolerance, self.largest, self.problems, self.compared = tolerance, 0.0, [], 0

    def numbers(self, name, ours, theirs):
        self.compared += 1
        difference = abs(ours - theirs) / max(1.0, abs(ours))
        self.largest = max(self.largest, difference)
        if not difference <= self.tolerance:
            self.problems.append(f"{name}: {ours} and {theirs}")

    def record(self, exported, record, encodings, outputs, place):
        task, name = exported.about["task"], (record.get("text") or record.get("question"))[:40]
        if task in ("regression", "similarity"):
            self.numbers(name, record["value"], float(outputs["value"][place, 0]))
        elif task in ("classification", "multilabel"):
            for label, column in zip(exported.labels, outputs["probabilities"][place]):
                self.numbers(f"{name}: {label}", record["probabilities"][label], float(column))
        elif task == "tokens":
            first = first_tokens(encodings[0])
            words = [first[word] for word in sorted(first)]
            if len(words) != len(record["words"]):
                # A record that was cut off lacks words; any other has a token for each.
                about = exported.about
                if about["overflow"] != "truncate" or len(encodings[0].ids) < about["max_length"]:
                    self.problems.append(f"{name}: {len(record['words'])} words and {len(words)} with tokens")
                return
            self.compared += 1
            found = decode(outputs["logits"][place][words], exported.labels, exported.transitions)
            if found != record["labels"]:
                self.problems.append(f"{name}: {record['labels']} and {found}")
        else:
            start, end = outputs["start_logits"][place], outputs["end_logits"][place]
            context = [n for n, one in enumerate(encodings[0].sequence_ids) if one == 1]
            most = exported.about["max_answer_tokens"]
            spans = [(start[a] + end[b], a, b) for a in context for b in context if a <= b < a + most]
            null = float(start[0] + end[0])
            score, a, b = max(spans, key=lambda span: span[0])
            threshold = exported.about["no_answer_threshold"]
            is_null = threshold is not None and null - score > threshold
            ours = (None, None) if is_null else (encodings[0].offsets[a][0], encodings[0].offsets[b][1])
            self.numbers(name, record["score"], null if is_null else float(score))
            # `predict` adds characters next to an answer that belong to no token.
            found = None not in ours and record["start"] is not None
            found = found and record["start"] <= ours[0] < ours[1] <= record["end"]
            if not found and ours != (record["start"], record["end"]):
                self.problems.append(f"{name}: {record['start']}..{record['end']} and {ours}")


def contexts_of(path):
    """The context of each question, in the order of a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return [json.loads(line) for line in text.splitlines()]
    paragraphs = [paragraph for article in json.loads(text)["data"] for paragraph in article["paragraphs"]]
    return [paragraph["context"] for paragraph in paragraphs for _ in paragraph["qas"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export")
    parser.add_argument("predictions")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument(
        "--contexts", help="for questions: the SQuAD file that was predicted for (.json), or contexts as JSON lines")
    arguments = parser.parse_args()
    exported = Exported(arguments.export)
    lines = pathlib.Path(arguments.predictions).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    if arguments.contexts:
        contexts = contexts_of(pathlib.Path(arguments.contexts))
        if len(contexts) < len(records):
            raise SystemExit(f"{len(records)} questions, but {len(contexts)} contexts")
        records = [dict(one, context=context) for one, context in zip(records, contexts)]
    encoded = [(record, exported.encode(record)) for record in records]
    most = exported.about["max_length"]
    kept = [pair for pair in encoded if all(len(one.ids) <= most for one in pair[1])]
    comparison = Comparison(arguments.tolerance)
    for size in (1, BATCH):
        for start in range(0, len(kept), size):
            batch = kept[start : start + size]
            outputs = exported.run([encodings for _, encodings in batch])
            for place, (record, encodings) in enumerate(batch):
                comparison.record(exported, record, encodings, outputs, place)
    if not comparison.compared:
        comparison.problems.append("nothing was compared")
    for problem in comparison.problems[:20]:
        print(problem)
    print(
        f"{len(kept)} records alone and in batches, {len(encoded) - len(kept)} longer than a window; "
        f"largest difference {comparison.largest:.2e}, {len(comparison.problems)} problems"
    )
    raise SystemExit(1 if comparison.problems else 0)


if __name__ == "__main__":
    main()
