#!/usr/bin/env python3
"""Imports run folders of frostbert into MLflow.

    python scripts/import-mlflow.py RUN... [--tracking-uri sqlite:///mlflow.db] [--experiment NAME] [--no-artifacts]

RUN is a run folder with a lock.json (runs/sentiment/001), or a folder with such folders below it (runs). Each becomes a run
of the experiment NAME, or of one with the name of its pipeline: settings as params, metrics of train, validation and test
with the ends of their intervals, losses and validation metrics by epoch, where the run came from as tags, and the files of
the folder as artifacts. A run that is there already is left alone, so that the same command can be given again.

Needs mlflow (pip install mlflow; tried with 3.17). Its folder `mlruns` is no longer a place for new runs by default, so they
go to a database file; look at them with `mlflow ui --backend-store-uri sqlite:///mlflow.db`.
"""

import argparse
import csv
import datetime
import hashlib
import json
import math
import pathlib

import mlflow
from mlflow.entities import Metric, Param, RunTag

PARTS = ["train", "validation", "test"]
# What says where something lies, or follows from the machine.
PLACES = {"name", "run.dir", "model.path", "model.batch_tokens", "cache.dir", "cache.shard_tokens", "train.memory_mb"}
LONGEST_PARAM = 6000
AT_A_TIME = 900


def flat(value, prefix=""):
    """The values of nested tables by their whole keys; lists as JSON."""
    if not isinstance(value, dict):
        return {prefix: value if isinstance(value, str) else json.dumps(value)}
    pairs = {}
    for key, inner in value.items():
        pairs.update(flat(inner, f"{prefix}.{key}" if prefix else key))
    return pairs


def params_of(lock):
    pipeline = lock.get("winner") or lock["pipeline"]
    params = {key: value for key, value in flat(pipeline).items() if key not in PLACES}
    model = lock.get("base_model") or {}
    params["model"] = model.get("name") or pathlib.Path(pipeline["model"]["path"]).name
    return {key: value[:LONGEST_PARAM] for key, value in params.items()}


def scores_of(metrics):
    """The numbers of every part, and the ends of their intervals."""
    scores = {}
    for part in PARTS:
        for name, value in (metrics.get(part) or {}).items():
            if name.endswith("_ci"):
                scores[f"{part}/{name[:-3]}_low"], scores[f"{part}/{name[:-3]}_high"] = value
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                scores[f"{part}/{name}"] = value
    for name, value in (metrics.get("baseline") or {}).items():
        if isinstance(value, float):
            scores[f"baseline/{name}"] = value
    return scores


def history_of(run):
    """Epoch, name and value of every cell of history.csv."""
    path = run / "history.csv"
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for column, cell in row.items():
                if column != "epoch" and cell:
                    name = column.replace("validation_", "epoch/validation_", 1).replace("train_loss", "epoch/train_loss")
                    yield int(row["epoch"]), name if "/" in name else f"epoch/{name}", float(cell)


def run_folders(paths):
    for path in paths:
        if (path / "lock.json").is_file():
            yield path
        else:
            locks = sorted(path.rglob("lock.json"))
            yield from (lock.parent for lock in locks if "unfinished" not in lock.parts)


def import_run(client, run, experiment, with_artifacts):
    lock_bytes = (run / "lock.json").read_bytes()
    lock, identity = json.loads(lock_bytes), hashlib.sha256(lock_bytes).hexdigest()
    name = experiment or lock["pipeline"]["name"]
    known = client.get_experiment_by_name(name)
    experiment_id = known.experiment_id if known else client.create_experiment(name)
    if client.search_runs([experiment_id], f"tags.`frostbert.lock` = '{identity}'", max_results=1):
        print(f"{run}: there already")
        return
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    created = lock.get("created")
    when = datetime.datetime.fromisoformat(created) if created else datetime.datetime.now(datetime.timezone.utc)
    when = int(when.timestamp() * 1000)
    place = "/".join(run.resolve().parts[-2:])
    made = client.create_run(experiment_id, start_time=when, run_name=place)
    tags = {"frostbert.lock": identity, "frostbert.folder": str(run.resolve()), "frostbert.version": lock["frostbert"]}
    for key in ["commit", "host", "device"]:
        if lock.get(key):
            tags[f"frostbert.{key}"] = lock[key]
    card = run / "model_card.md"
    if card.exists():
        prose = card.read_text(encoding="utf-8").split("\n---\n", 1)[-1]
        tags["mlflow.note.content"] = prose[:8000]
    best = metrics.get("best_epoch") or 0
    values = [Metric(name, value, when, best) for name, value in scores_of(metrics).items()]
    values += [Metric(name, value, when, epoch) for epoch, name, value in history_of(run)]
    values = [value for value in values if math.isfinite(value.value)]
    params = [Param(key, value) for key, value in params_of(lock).items()]
    client.log_batch(made.info.run_id, params=params[:100], tags=[RunTag(key, value) for key, value in tags.items()])
    for first in range(0, len(values), AT_A_TIME):
        client.log_batch(made.info.run_id, metrics=values[first : first + AT_A_TIME])
    if with_artifacts:
        client.log_artifacts(made.info.run_id, str(run))
    client.set_terminated(made.info.run_id, end_time=when)
    print(f"{run}: {name}, {len(params)} params, {len(values)} metrics")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN")
    parser.add_argument("--tracking-uri", default="sqlite:///mlflow.db")
    parser.add_argument("--experiment")
    parser.add_argument("--no-artifacts", action="store_true")
    arguments = parser.parse_args()
    client = mlflow.MlflowClient(tracking_uri=arguments.tracking_uri)
    folders = list(run_folders(arguments.runs))
    if not folders:
        parser.error("none of these folders holds a finished run")
    for run in folders:
        import_run(client, run, arguments.experiment, not arguments.no_artifacts)


if __name__ == "__main__":
    main()
