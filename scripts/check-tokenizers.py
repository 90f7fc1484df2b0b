#!/usr/bin/env python3
"""Compares a tokenizer that frostbert built with the fast tokenizer of transformers on many paragraphs.

    frostbert extract PIPELINE                                # with model.path = MODEL, a folder without tokenizer.json
    python scripts/check-tokenizers.py MODEL CACHE/tokenizer.json FILE... [--paragraphs 4000]

MODEL is the folder, CACHE the cache folder that `extract` names, in which the tokenizer that was built is kept. FILEs are
texts in UTF-8; blank lines part their paragraphs. Compares ids and offsets, prints the differences, and fails if there are
any. Needs transformers, tokenizers and sentencepiece; nothing is fetched.

DeBERTa is compared with transformers' own converter (`DebertaV2Converter`): see scripts/fixtures/old_forms.py.
"""

import argparse
import json
import os
import pathlib
import re
import sys
import types

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import tokenizers
import transformers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("tokenizer", type=pathlib.Path)
    parser.add_argument("files", type=pathlib.Path, nargs="+")
    parser.add_argument("--paragraphs", type=int, default=4000)
    options = parser.parse_args()
    paragraphs = []
    for path in options.files:
        paragraphs += [part for part in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")) if part]
    paragraphs = paragraphs[: options.paragraphs]
    built = tokenizers.Tokenizer.from_file(str(options.tokenizer))
    normalizer = json.loads(options.tokenizer.read_text(encoding="utf-8"))["normalizer"] or {}
    expected = fast(options.model, normalizer)
    n_different = 0
    for text in paragraphs:
        ours, theirs = built.encode(text), expected.encode(text)
        if (ours.ids, ours.offsets) != (theirs.ids, theirs.offsets):
            n_different += 1
            place = next((i for i, (a, b) in enumerate(zip(ours.ids, theirs.ids)) if a != b), None)
            print(f"token {place}: {ours.tokens[place or 0 :][:8]} and {theirs.tokens[place or 0 :][:8]} in {text[:60]!r}")
    print(f"{len(paragraphs)} paragraphs, {n_different} different")
    sys.exit(n_different > 0)


def fast(model: pathlib.Path, normalizer: dict) -> tokenizers.Tokenizer:
    """The tokenizer of transformers; where case is not said in the folder, the one that frostbert took."""
    if (model / "spm.model").is_file():
        from transformers.convert_slow_tokenizer import DebertaV2Converter

        path = model / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        known = transformers.AutoTokenizer.from_pretrained(model)
        slow = types.SimpleNamespace(
            vocab_file=str(model / "spm.model"),
            do_lower_case=config.get("do_lower_case", False),
            split_by_punct=config.get("split_by_punct", False),
            add_prefix_space=config.get("add_prefix_space", True),
            convert_tokens_to_ids=known.convert_tokens_to_ids,
        )
        converted = DebertaV2Converter(slow).converted()
        converted.add_special_tokens([token.content for _, token in sorted(known.added_tokens_decoder.items())])
        return converted
    case = {"do_lower_case": normalizer["lowercase"]} if "lowercase" in normalizer else {}
    return transformers.AutoTokenizer.from_pretrained(model, **case).backend_tokenizer


if __name__ == "__main__":
    main()
