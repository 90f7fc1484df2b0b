#!/usr/bin/env python3
"""How fast sentence-transformers (PyTorch, CPU) encodes a text file: the figure that frostbert's extraction stands beside.

    python scripts/bench-sentence-transformers.py FILE.txt.gz [--texts 5000] [--runs 3] [--model models/minilm]

Mean pooling, max_seq_length 128, batches of 32, sorted by length as the library does, torch threads = number of CPUs. One
warm-up, then the best of the runs. Prints one JSON object: texts, tokens (real ones, after truncation, [CLS] and [SEP] with
them), seconds, tokens_per_second, and all runs' seconds. Needs sentence-transformers and torch.
"""

import argparse
import gzip
import itertools
import json
import os
import pathlib
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import sentence_transformers
import torch
import transformers

try:
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
except ImportError:  # before version 6
    from sentence_transformers.models import Pooling, Transformer

BATCH_SIZE = 32
MAX_LENGTH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path, help="one text a line; .gz opens as is")
    parser.add_argument("--texts", type=int, default=5000, help="encode the first so many lines (default 5000)")
    parser.add_argument("--runs", type=int, default=3, help="the best of so many (default 3)")
    parser.add_argument("--model", default="models/minilm", help="a checkpoint folder (default models/minilm)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="torch threads (default: all CPUs)")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    open_text = gzip.open if arguments.file.suffix == ".gz" else open
    with open_text(arguments.file, "rt", encoding="utf-8") as file:
        texts = [line.rstrip("\r\n") for line in itertools.islice(file, arguments.texts)]

    model = load(arguments.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    tokens = sum(map(len, tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"]))

    model.encode(texts[: 4 * BATCH_SIZE], batch_size=BATCH_SIZE, show_progress_bar=False)
    seconds = []
    for _ in range(arguments.runs):
        started = time.perf_counter()
        states = model.encode(texts, batch_size=BATCH_SIZE, show_progress_bar=False)
        seconds.append(time.perf_counter() - started)
    assert states.shape[0] == len(texts)
    print(
        json.dumps(
            {
                "texts": len(texts),
                "tokens": tokens,
                "seconds": min(seconds),
                "tokens_per_second": tokens / min(seconds),
                "runs": seconds,
                "threads": torch.get_num_threads(),
                "batch_size": BATCH_SIZE,
                "max_length": MAX_LENGTH,
                "sentence_transformers": sentence_transformers.__version__,
                "torch": torch.__version__,
            }
        )
    )


def load(folder: str) -> sentence_transformers.SentenceTransformer:
    """From a bare checkpoint: what is pooled and how is said here, not by files of the library's own."""
    width = transformers.AutoConfig.from_pretrained(folder).hidden_size
    modules = [Transformer(folder, max_seq_length=MAX_LENGTH), Pooling(width, pooling_mode="mean")]
    return sentence_transformers.SentenceTransformer(modules=modules, device="cpu")


if __name__ == "__main__":
    main()
