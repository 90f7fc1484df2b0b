#!/usr/bin/env python3
"""Exports an encoder to a folder with a model.onnx that puts out the states of every layer, for frostbert.

    python scripts/export-onnx.py MODEL FOLDER

MODEL is a model's folder, or its name on the hub; FOLDER must not exist. It gets model.onnx (with model.onnx_data
beside it if the weights are above 1 GB), config.json, the tokenizer's files, and of a sentence-transformers folder its
modules. Name FOLDER in `model.path`.

The inputs are input_ids, attention_mask and, where the model has them, token_type_ids, all i64 `[batch, sequence]`; the
outputs are hidden_states.0 (the input of the first layer) to hidden_states.L (transformers' last_hidden_state), f32
`[batch, sequence, hidden]`. Before the folder appears, ONNX Runtime runs the file: texts of several lengths, alone and
padded in a batch, must give the states of torch to within 1e-4 of the largest value of their layer.

Code of the repository's own is run only with --trust-remote-code. Needs torch, transformers, onnx, onnxscript and
onnxruntime (tried with 2.15, 5.24, 1.23, 0.7, 1.32).
"""

import argparse
import inspect
import json
import pathlib
import shutil
import sys
import tempfile

import numpy
import onnx
import onnxruntime
import torch
import transformers

# Lengths of the texts that are compared. The export is traced at none of them.
LENGTHS = [1, 2, 9, 40, 140]
TOLERANCE = 1e-4
# A file of ONNX is at most 2 GB.
MOST_IN_ONE_FILE = 1_000_000_000
OF_SENTENCE_TRANSFORMERS = ["modules.json", "config_sentence_transformers.json", "sentence_*_config.json"]


# Encoders of these are saved alone too, and do not say then that they are half of a pair.
PAIRS = ["longt5", "mt5", "t5", "umt5"]


class Refused(Exception):
    """What the user can do something about."""


class EveryLayer(torch.nn.Module):
    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        output = self.model(**dict(zip(self.names, inputs)), output_hidden_states=True, return_dict=True)
        # What follows the last layer, as a final norm, belongs to it: it is what poolings are taken from.
        return (*output.hidden_states[:-1], output.last_hidden_state)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="a model's folder, or its name on the hub")
    parser.add_argument("folder", metavar="FOLDER", type=pathlib.Path, help="the folder to make")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that the repository brings")
    arguments = parser.parse_args()
    if arguments.folder.exists():
        print(f"error: `{arguments.folder}` exists: name another folder", file=sys.stderr)
        return 1
    arguments.folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-onnx-", dir=arguments.folder.parent) as scratch:
        made = pathlib.Path(scratch) / "model"
        made.mkdir()
        try:
            export(arguments.model, made, arguments.trust_remote_code)
        except Refused as problem:
            print(f"error: {problem}", file=sys.stderr)
            return 1
        made.rename(arguments.folder)
    return 0


def export(name: str, folder: pathlib.Path, trusts: bool) -> None:
    model, config = load(name, trusts)
    save_tokenizer(name, folder, trusts)
    config.save_pretrained(folder)
    copy_sentence_files(pathlib.Path(name), folder)

    taken = inspect.signature(model.forward).parameters
    names = [name for name in ["input_ids", "attention_mask", "token_type_ids"] if name in taken]
    if names[:2] != ["input_ids", "attention_mask"]:
        raise Refused(f"{type(model).__name__} takes no input_ids and attention_mask, but {', '.join(taken)}")
    module = EveryLayer(model, names).eval()
    with torch.no_grad():
        outputs = [f"hidden_states.{layer}" for layer in range(len(module(*texts(config, names, [7, 5]))))]
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    try:
        program = torch.onnx.export(
            module,
            texts(config, names, [13, 11, 12]),
            input_names=names,
            output_names=outputs,
            dynamic_shapes=(tuple(axes for _ in names),),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as problem:
        # What torch cannot trace, such as a window that depends on the length of the text.
        why = str(problem.__cause__ or problem).strip().splitlines()[0]
        raise Refused(f"torch cannot export {type(model).__name__}: {why}") from problem
    graph = without_traces(program.model_proto)
    n_bytes = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    apart = {"save_as_external_data": True, "location": "model.onnx_data"} if n_bytes > MOST_IN_ONE_FILE else {}
    onnx.save_model(graph, str(folder / "model.onnx"), **apart)

    worst = compare(module, folder / "model.onnx", config, names, outputs)
    print(f"{len(outputs) - 1} layers of {type(model).__name__}, inputs {', '.join(names)}")
    print(f"largest difference from torch: {worst:.1e} of a layer's largest value")


def load(name: str, trusts: bool):
    try:
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=trusts)
        # Of a model that also writes text, such as T5, only the encoder.
        is_pair = getattr(config, "is_encoder_decoder", False) or config.model_type in PAIRS
        kind = transformers.AutoModelForTextEncoding if is_pair else transformers.AutoModel
        model, loaded = kind.from_pretrained(
            name, trust_remote_code=trusts, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
    except (OSError, ValueError, KeyError) as problem:
        raise Refused(f"transformers cannot load `{name}`: {problem}") from problem
    # Weights that are made up give states that look right, and so do layers without some of theirs.
    lacks = [key for key in loaded["missing_keys"] if "pooler" not in key]
    parts = ("embeddings.", "layer.", "layers.", "encoder.")
    unread = [key for key in loaded["unexpected_keys"] if any(part in key for part in parts)]
    unread = [key for key in unread if "position_ids" not in key and not key.startswith(("cls.", "decoder."))]
    for keys, what in [(lacks, "has no"), (unread, "has what no layer of transformers reads:")]:
        if keys:
            some = ", ".join(sorted(keys)[:5])
            raise Refused(f"`{name}` {what} {some} ({len(keys)} in all): the states would be wrong")
    model.config.use_cache = False
    return model.eval(), config


def save_tokenizer(name: str, folder: pathlib.Path, trusts: bool) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=trusts)
    tokenizer.save_pretrained(folder)
    if not (folder / "tokenizer.json").is_file():
        raise Refused(f"{type(tokenizer).__name__} of `{name}` is no fast tokenizer, so it has no tokenizer.json")


def copy_sentence_files(source: pathlib.Path, folder: pathlib.Path) -> None:
    for pattern in OF_SENTENCE_TRANSFORMERS:
        for path in source.glob(pattern):
            shutil.copy(path, folder / path.name)
    modules = folder / "modules.json"
    for module in json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []:
        if module["path"] and (source / module["path"]).is_dir():
            shutil.copytree(source / module["path"], folder / module["path"])


def texts(config, names: list[str], lengths: list[int]) -> tuple[torch.Tensor, ...]:
    """Texts of random ids, padded at their ends; in the longer ones, the second half is of the second type."""
    generator = torch.Generator().manual_seed(len(lengths))
    shape = (len(lengths), max(lengths))
    padding = getattr(config, "pad_token_id", None) or 0
    # The first ids are those of special tokens, for which some families count otherwise.
    ids = torch.randint(min(5, config.vocab_size - 1), config.vocab_size, shape, generator=generator)
    places = torch.arange(shape[1]).expand(shape)
    mask = (places < torch.tensor(lengths).unsqueeze(1)).to(torch.int64)
    n_types = getattr(config, "type_vocab_size", None) or 1
    types = (places >= shape[1] // 2).to(torch.int64) * mask if n_types > 1 else torch.zeros_like(ids)
    inputs = {"input_ids": torch.where(mask == 1, ids, padding), "attention_mask": mask, "token_type_ids": types}
    return tuple(inputs[name] for name in names)


def without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without the names of Python files and lines, which differ from machine to machine."""
    for node in graph.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for function in graph.functions:
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]
    for value in [*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer]:
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    return graph


def compare(module, path: pathlib.Path, config, names: list[str], outputs: list[str]) -> float:
    """The largest difference from torch in any layer of any text, alone and in a batch, over its largest value."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fed = [node.name for node in session.get_inputs()]
    most = getattr(config, "max_position_embeddings", None) or max(LENGTHS)
    lengths = [length for length in LENGTHS if length <= most - 4] or [1]
    batch = texts(config, names, lengths)
    worst = 0.0
    together = session.run(outputs, {name: value.numpy() for name, value in zip(names, batch) if name in fed})
    for row, length in enumerate(lengths):
        alone = tuple(value[row : row + 1, :length] for value in batch)
        with torch.no_grad():
            expected = module(*alone)
        single = session.run(outputs, {name: value.numpy() for name, value in zip(names, alone) if name in fed})
        for name, states, own, shared in zip(outputs, expected, single, together):
            states = states[0].numpy()
            for how, got in [("alone", own[0]), ("in a batch", shared[row, :length])]:
                difference = float(numpy.abs(states - got).max() / max(numpy.abs(states).max(), 1e-9))
                if not difference <= TOLERANCE:
                    raise Refused(
                        f"{name} of a text of {length} tokens {how} differs from torch by {difference:.1e} of the "
                        "largest value: the export is wrong"
                    )
                worst = max(worst, difference)
    return worst


if __name__ == "__main__":
    sys.exit(main())
