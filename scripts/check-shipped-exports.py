#!/usr/bin/env python3
"""Runs shipped pipelines with states in f32, exports each run to ONNX, and compares the export in onnxruntime with what
`frostbert predict --json` gives for the run's test data, by scripts/check-onnx-export.py.

    python scripts/check-shipped-exports.py [NAME...] [--work DIR] [--most 400] [--program target/release/frostbert]

NAME is that of a file in pipelines/; without one, the pipelines below are run. Test data are the first MOST records of
the pipeline's test source, or of its train source if it has none. DIR keeps caches and runs, so that a second call takes
less time. Prints a row of Markdown for each pipeline, and exits with 1 if one of them fails or differs. Needs Python 3.11
with onnxruntime, tokenizers and numpy, and the data sets in datasets/.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PIPELINES = [
    "sentiment", "topics", "pairs", "pairs_regression", "entities", "entities_crf", "questions", "banking77", "ud_ewt",
    "squad_small", "stsb",
]
COMPARED = r"(\d+) records alone and in batches, (\d+) longer than a window; largest difference (\S+), (\d+) problems"


class Failed(Exception):
    pass


def run(command, may_fail=False):
    ran = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    if ran.returncode != 0 and not may_fail:
        raise Failed(f"{' '.join(map(str, command))}: {ran.stdout[-300:]}{ran.stderr[-700:]}")
    return ran.stdout


def test_file(name):
    data = tomllib.loads((ROOT / "pipelines" / f"{name}.toml").read_text(encoding="utf-8"))["data"]
    source = data.get("test") or data["train"]
    source = source[0] if isinstance(source, list) else source
    return source["path"] if isinstance(source, dict) else source


def compare(name, work, options):
    """A row of the table, and whether the export agrees."""
    begun, program = time.perf_counter(), options.program
    places = [f"cache.dir={work / 'cache'}", f"run.dir={work / 'runs'}", "cache.dtype=f32"]
    sets = [part for place in places for part in ("--set", place)]
    saved = json.loads(run([program, "run", f"pipelines/{name}.toml", "--json", "--quiet", *sets]))["train"]["run"]
    folder = work / f"{name}-{pathlib.Path(saved).name}-onnx"
    export = [program, "export", saved, "--to", "onnx", "--out", folder, "--json"]
    check = json.loads(run(export))["check"]
    tested = test_file(name)
    lines = run([program, "predict", saved, tested, "--json", "--quiet"]).splitlines()
    predictions = work / f"{name}.jsonl"
    predictions.write_text("".join(f"{line}\n" for line in lines[: options.most]), encoding="utf-8")
    command = [sys.executable, "scripts/check-onnx-export.py", folder, predictions]
    said = run([*command, "--contexts", tested] if tested.endswith(".json") else command, may_fail=True)
    found = re.search(COMPARED, said)
    if not found:
        raise Failed(said)
    n_kept, n_longer, largest, n_problems = found.groups()
    left_out = f" ({n_longer} longer than a window)" if n_longer != "0" else ""
    own = f"{check['rows']}, {check['largest_difference']:.1e}"
    seconds = time.perf_counter() - begun
    row = f"| {name} | {own} | {n_kept}, {largest}{left_out} | {n_problems} | {seconds:.0f} s |"
    return row if n_problems == "0" else f"{row}\n{said}", n_problems == "0"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--most", type=int, default=400)
    parser.add_argument("--program", default=ROOT / "target" / "release" / "frostbert", type=pathlib.Path)
    options = parser.parse_args()
    print("| pipeline | rows in its own check, largest | records in Python, largest difference | problems | time |")
    print("|---|---|---|---|---|", flush=True)
    agree = True
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or pathlib.Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for name in options.names or PIPELINES:
            try:
                row, agrees = compare(name, work, options)
            except Failed as failure:
                row, agrees = f"| {name} | failed | | | |\n{failure}", False
            print(row, flush=True)
            agree = agree and agrees
    raise SystemExit(0 if agree else 1)


if __name__ == "__main__":
    main()
