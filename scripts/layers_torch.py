#!/usr/bin/env python3
"""The layers and the head of a frostbert run with `train.unfreeze`, trained once more in PyTorch from the same cached
states.

    python scripts/layers_torch.py RUN_DIR [--root DIR] [--threads N] [--attention sdpa|eager]

Reads the run's lock.json (settings, cache, states), predictions.parquet (rows, parts, targets), and the token states
below the trained layers from the cache's own files. The layers are those of transformers with the checkpoint's
weights, the head is a linear layer over the mean of a text's tokens. Optimiser, rates of head and layers, decay,
schedule, warm-up, clipping, epochs, batch size, dropout and the rule of the best weights are those of the run;
initial weights, order and dropout are PyTorch's own draws, seeded by the run's seed.

What a user of PyTorch would do is done here too: texts of an epoch are shuffled, and sorted by length within each 50
batches, so that a batch has little padding (`group_by_length` of transformers); the batches are then shuffled.
Validation and test are sorted by length. States stay in memory as the cache has them (f16) and become f32 by the
batch. AdamW is the fused one.

Prints one JSON object: metrics on test, the best epoch, the seconds of the loop over the epochs with a validation
after each (`fit_seconds`), for each epoch the user CPU seconds of the process at its end (`cpu_at`), the peak memory
once everything was imported (`imports_bytes`), and the share of the rows of training batches that were padding
(`padding`).

Understands classification with a linear head and mean pooling, and texts of one window; layers of BERT, RoBERTa and
ELECTRA. Needs torch, transformers, numpy, pyarrow, blake3 and scikit-learn.
"""

import argparse
import json
import os
import pathlib
import resource
import sys
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import heads_torch
import numpy as np
import torch
import torch_loop
import transformers
from sklearn.metrics import accuracy_score, f1_score
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

# Batches whose texts are sorted together by length.
SORTED_BATCHES = 50
SCORED_SAMPLES = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, metavar="RUN_DIR")
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("."), help="the folder that frostbert ran in")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--attention", choices=("sdpa", "eager"), default="sdpa")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    imports_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lock = json.loads((arguments.run / "lock.json").read_text())
    require_understood(lock["pipeline"])
    torch.manual_seed(lock["pipeline"]["seed"])
    texts = Texts(lock, heads_torch.pq.read_table(arguments.run / "predictions.parquet"), arguments.root)
    model = Model(lock, arguments.root, arguments.attention, len(texts.labels))
    result = train(model, texts, lock["pipeline"]["train"])
    print(json.dumps({"test": measure(model, texts, "test")[0], **result, "imports_bytes": imports_bytes}))


def require_understood(settings: dict) -> None:
    task, head, options = settings["data"]["task"], settings["head"], settings["train"]
    if (task, head["kind"], head["pooling"]) != ("classification", "linear", "mean") or not options.get("unfreeze"):
        sys.exit("error: a linear head on the mean of trained layers is understood, for classification")
    refused = [name for name in ("class_weights", "lora", "loss") if options.get(name)]
    if refused or options["optimizer"] != "adamw" or options["label_smoothing"]:
        sys.exit("error: plain cross-entropy and adamw are understood, without class weights, smoothing and LoRA")


class Texts:
    """The token states of every text, its class and its part."""

    def __init__(self, lock: dict, table, root: pathlib.Path):
        cache = heads_torch.Cache(root, lock)
        found = cache.documents(["position"])
        keys = table["key"].to_pylist()
        if any((np.diff(found[key][1]["position"]) <= 0).any() for key in keys):
            sys.exit("error: texts of one window are understood")
        # They are only read.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        self.states = [torch.from_numpy(found[key][0]) for key in keys]
        self.lengths = np.array([len(states) for states in self.states])
        self.labels = lock["labels"]
        ids = {name: place for place, name in enumerate(self.labels)}
        self.targets = torch.tensor([ids[name] for name in table["label"].to_pylist()])
        parts = np.array(table["part"].to_pylist())
        self.at = {part: np.flatnonzero(parts == part) for part in heads_torch.PARTS}

    def batch(self, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The states, padded, and the lengths of some texts."""
        states = pad_sequence([self.states[place] for place in places], batch_first=True)
        return states.float(), torch.from_numpy(self.lengths[places])

    def by_length(self, places: np.ndarray) -> np.ndarray:
        return places[np.argsort(-self.lengths[places], kind="stable")]

    def epoch(self, batch_size: int) -> list[np.ndarray]:
        """The batches of an epoch."""
        places = self.at["train"][torch.randperm(len(self.at["train"])).numpy()]
        groups = [self.by_length(group) for group in pieces(places, SORTED_BATCHES * batch_size)]
        batches = [batch for group in groups for batch in pieces(group, batch_size)]
        return [batches[place] for place in torch.randperm(len(batches)).tolist()]


def pieces(places: np.ndarray, size: int) -> list[np.ndarray]:
    return [places[start : start + size] for start in range(0, len(places), size)]


class Model(torch.nn.Module):
    def __init__(self, lock: dict, root: pathlib.Path, attention: str, n_classes: int):
        super().__init__()
        settings = lock["pipeline"]
        path = root / settings["model"]["path"]
        encoder = transformers.AutoModel.from_pretrained(path, attn_implementation=attention)
        if encoder.config.model_type not in ("bert", "roberta", "electra"):
            sys.exit(f"error: layers of BERT, RoBERTa and ELECTRA are understood, not of {encoder.config.model_type}")
        layers = encoder.encoder.layer
        n_layers = len(layers) if settings["train"]["unfreeze"] == "all" else settings["train"]["unfreeze"]
        if lock["states"] != [f"tokens-L{len(layers) - n_layers:02}"]:
            sys.exit(f"error: the run read {lock['states']}, not the tokens below its layers")
        self.layers = torch.nn.ModuleList(layers[len(layers) - n_layers :])
        self.dropout = torch.nn.Dropout(settings["head"]["dropout"])
        self.head = torch.nn.Linear(encoder.config.hidden_size, n_classes)
        torch.nn.init.normal_(self.head.weight, std=0.02)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        is_token = torch.arange(states.shape[1]) < lengths[:, None]
        bias = None
        if not is_token.all():
            bias = torch.zeros(is_token.shape).masked_fill(~is_token, torch.finfo(torch.float32).min)[:, None, None]
        for layer in self.layers:
            states = layer(states, bias)
        pooled = (states * is_token[..., None]).sum(1) / lengths[:, None]
        return self.head(self.dropout(pooled))

    def groups(self, options: dict) -> list[dict]:
        """The head at its rate, and each layer at its own."""
        rate, decay = options.get("layer_lr", 5e-5), options.get("layer_decay", 0.95)
        downwards = enumerate(reversed(self.layers))
        layers = [{"params": layer.parameters(), "lr": rate * decay**depth} for depth, layer in downwards]
        return [{"params": self.head.parameters(), "lr": options["lr"]}, *layers]


def train(model: Model, texts: Texts, options: dict) -> dict:
    optimizer = torch.optim.AdamW(
        model.groups(options), betas=options["betas"], weight_decay=options["weight_decay"], fused=True
    )
    stopping = options["early_stopping"]
    followed = stopping.get("metric", "macro_f1") if stopping else "loss"
    cpu_at, rows, tokens = [], 0, 0

    def batches():
        return texts.epoch(options["batch_size"])

    def loss(places):
        nonlocal rows, tokens
        states, lengths = texts.batch(places)
        rows, tokens = rows + states.shape[0] * states.shape[1], tokens + int(lengths.sum())
        return F.cross_entropy(model(states, lengths), texts.targets[places])

    def validate():
        metrics, loss = measure(model, texts, "validation")
        cpu_at.append(resource.getrusage(resource.RUSAGE_SELF).ru_utime)
        return -loss if followed == "loss" else metrics[followed]

    n_texts = len(texts.at["train"])
    done = torch_loop.fit(model, optimizer, options, stopping, n_texts, batches, loss, validate)
    return {
        "best_epoch": done.best_epoch,
        "fit_seconds": done.seconds,
        "cpu_at": cpu_at,
        "padding": 1 - tokens / rows,
    }


def measure(model: Model, texts: Texts, part: str) -> tuple[dict, float]:
    """Metrics and mean loss of a part, without dropout."""
    model.eval()
    at = texts.by_length(texts.at[part])
    with torch.no_grad():
        logits = torch.cat([model(*texts.batch(places)) for places in pieces(at, SCORED_SAMPLES)])
    truth, predicted = texts.targets[at], logits.argmax(1)
    metrics = {"accuracy": accuracy_score(truth, predicted), "macro_f1": f1_score(truth, predicted, average="macro")}
    return metrics, F.cross_entropy(logits, truth).item()


if __name__ == "__main__":
    main()
