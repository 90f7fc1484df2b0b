#!/usr/bin/env python3
"""Reads what a run leaves for other programs with those programs, and compares it with the run's own numbers.

    python scripts/check-cards.py RUN... [--tensorboard DIR]

- model_card.md and .eval_results/ by huggingface_hub: the head parses, its results are those of metrics.json, and the prose
  has no markup of the data.
- The pictures by an XML parser.
- pred_probs.npy, labels.npy and features.npy (of `frostbert run ... --datalab`) by numpy and cleanlab's Datalab: rows add up
  to 1, their accuracy is that of checks.json, and an audit finds its kinds of issues.
- Event files below DIR (of `--tensorboard DIR`) by tensorboard: losses are those of history.csv, settings are hparams, and
  of a sweep every trial of the leaderboard is there.

Needs huggingface_hub, numpy, cleanlab[datalab] and tensorboard (tried with 2.4, 2.4, 2.9, 2.21). The hub itself is not asked:
whether it takes a head as it is shows when it is uploaded.
"""

import argparse
import csv
import json
import pathlib
import re
import sys
import xml.etree.ElementTree

import numpy
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import EvalResult

PICTURES = ["history.svg", "confusion.svg", "reliability.svg", "precision_recall.svg", "roc.svg"]
NOT_METRICS = {"n", "n_words"}


def expect(is_true, what):
    if not is_true:
        sys.exit(f"error: {what}")


def told_part(metrics):
    part = "test" if metrics.get("test") else "validation"
    return part, metrics.get(part) or {}


def numbers_of(scores):
    """The metrics of a part by their names in words, as the card's head calls them."""
    is_metric = lambda name, value: isinstance(value, (int, float)) and name not in NOT_METRICS
    return {name.replace("_", " "): value for name, value in scores.items() if is_metric(name, value)}


def check_card(run, metrics):
    card = ModelCard.load(run / "model_card.md", ignore_metadata_errors=False)
    data = card.data
    expect(data.library_name == "frostbert" and data.pipeline_tag in data.tags, f"{run}: the head's library or tags")
    part, scores = told_part(metrics)
    expected = numbers_of(scores)
    results: list[EvalResult] = data.eval_results or []
    got = {result.metric_name: result.metric_value for result in results}
    expect(set(got) == set(expected), f"{run}: metrics {sorted(got)}, and in metrics.json {sorted(expected)}")
    for name, value in expected.items():
        expect(abs(got[name] - value) <= 1e-12 * max(1.0, abs(value)), f"{run}: {name} {got[name]}, not {value}")
    expect(all(result.dataset_split == part for result in results), f"{run}: results of {part}")
    expect(set(data.metrics or []) == {result.metric_type for result in results}, f"{run}: the list of metrics")
    prose = re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", card.text, flags=re.DOTALL))
    expect(not re.search(r"<[a-zA-Z/!]", prose), f"{run}: HTML in the prose")
    # What the hub writes, it reads alike.
    expect(ModelCard(str(card)).data.to_dict() == data.to_dict(), f"{run}: a card that is not the same when it is saved")
    return len(results)


def check_results(run, metrics):
    _, scores = told_part(metrics)
    expected = set(numbers_of(scores).values())
    entries = []
    for path in sorted((run / ".eval_results").glob("*.yaml")):
        entries += yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in entries:
        expect(set(entry) <= {"dataset", "value", "verifyToken", "date", "source", "notes"}, f"{run}: {entry}")
        expect(set(entry["dataset"]) <= {"id", "task_id", "revision"} and entry["value"] in expected, f"{run}: {entry}")
    try:
        from huggingface_hub import parse_eval_result_entries
    except ImportError:
        return len(entries)
    return len(parse_eval_result_entries(entries))


def check_pictures(run):
    found = [name for name in PICTURES if (run / name).exists()]
    for name in found:
        root = xml.etree.ElementTree.parse(run / name).getroot()
        expect(root.tag.endswith("svg"), f"{run}: {name}")
    return found


def check_datalab(run):
    from cleanlab import Datalab

    if not (run / "pred_probs.npy").exists():
        return "no"
    probabilities, labels, features = (numpy.load(run / f"{name}.npy") for name in ["pred_probs", "labels", "features"])
    with (run / "datalab_rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expect(len(rows) == len(labels) == len(probabilities) == len(features), f"{run}: rows of the arrays")
    expect(numpy.abs(probabilities.sum(axis=1) - 1).max() < 1e-5, f"{run}: probabilities that do not add up to 1")
    expect(sorted(set(labels.tolist())) == list(range(probabilities.shape[1])), f"{run}: classes of labels.npy")
    names = {(label, row["label"]) for label, row in zip(labels.tolist(), rows)}
    expect(len(names) == probabilities.shape[1], f"{run}: names of classes {sorted(names)}")
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    checked = json.loads((run / "checks.json").read_text(encoding="utf-8"))["label_errors"]
    if not checked["left_out"]:
        expect(abs(accuracy - checked["accuracy"]) <= 1e-4, f"{run}: accuracy {accuracy}, not {checked['accuracy']}")
    lab = Datalab(data={"label": labels}, label_name="label", verbosity=0)
    lab.find_issues(pred_probs=probabilities, features=features)
    summary = lab.get_issue_summary().set_index("issue_type")["num_issues"]
    expect({"label", "outlier", "near_duplicate"} <= set(summary.index), f"{run}: {summary}")
    return f"{summary['label']} of {len(labels)} labels doubted (checks.json: {checked['count']})"


def check_events(run, logs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    def read(folder):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        return events

    folder = logs / run.resolve().relative_to(run.resolve().parents[1])
    events = read(folder)
    tags = set(events.Tags()["scalars"])
    if (run / "history.csv").exists():
        with (run / "history.csv").open(newline="", encoding="utf-8") as file:
            expected = [(int(row["epoch"]), float(row["train_loss"])) for row in csv.DictReader(file)]
        got = [(event.step, event.value) for event in events.Scalars("loss/train")]
        expect([step for step, _ in got] == [step for step, _ in expected], f"{folder}: epochs")
        expect(all(abs(a - b) <= 1e-6 * max(1, abs(b)) for (_, a), (_, b) in zip(got, expected)), f"{folder}: losses")
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    settings = metadata.parse_session_start_info_plugin_data(content).hparams
    expect("head.kind" in settings, f"{folder}: settings {dict(settings)}")
    trials = sorted(folder.glob("trial-*"))
    if (run / "leaderboard.csv").exists():
        with (run / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        expect(len(trials) == min(len(rows), 1000), f"{folder}: {len(trials)} trials of {len(rows)}")
        best = read(folder / f"trial-{int(rows[0]['trial']):04}")
        score = next(name for name in rows[0] if name.startswith("validation_"))
        value = best.Scalars(score.replace("_", "/", 1))[0].value
        expect(abs(value - float(rows[0][score])) < 1e-6, f"{folder}: the best trial scores {value}")
    return f"{len(tags)} tags, {len(trials)} trials"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN")
    parser.add_argument("--tensorboard", type=pathlib.Path, metavar="DIR")
    arguments = parser.parse_args()
    for run in arguments.runs:
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        said = [
            f"{check_card(run, metrics)} results in the card, {check_results(run, metrics)} in .eval_results",
            f"pictures: {', '.join(check_pictures(run)) or 'none'}",
            f"datalab: {check_datalab(run)}",
        ]
        if arguments.tensorboard:
            said.append(f"tensorboard: {check_events(run, arguments.tensorboard)}")
        print(f"{run}: " + "; ".join(said))


if __name__ == "__main__":
    main()
