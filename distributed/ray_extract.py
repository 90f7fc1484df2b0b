#!/usr/bin/env python3
"""Extracts on a Ray cluster: `python ray_extract.py pipeline.toml --out /shared/corpus --workers 8 --cpus 4 --gpus 1`.

Each worker is an actor with one process of `frostbert work`. Ray starts actors again that die with their node, and the
tasks that they had are done again. --address names a running cluster; without it, Ray starts on this machine.
"""

import argparse
import json
import os

import pyarrow
import ray
import ray.data

import frostbert_workers


class Extractor:
    """An actor: does one task at a time."""

    def __init__(self, arguments):
        # Ray has set CUDA_VISIBLE_DEVICES to the GPU of this actor.
        self.worker = frostbert_workers.worker_of(arguments)

    def __call__(self, batch):
        answers = [json.dumps(self.worker.run(task)) for task in batch["task"].to_pylist()]
        return pyarrow.table({"answer": answers})


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    frostbert_workers.add_arguments(parser)
    parser.add_argument("--workers", type=int, default=1, help="number of workers at the same time [default: 1]")
    parser.add_argument("--gpus", type=int, default=0, choices=(0, 1), help="GPUs of a worker [default: 0]")
    parser.add_argument("--address", default="local", help="the cluster, as for ray.init [default: this machine]")
    arguments = frostbert_workers.parse(parser)
    planned = frostbert_workers.plan(
        arguments.pipeline, arguments.out, arguments.program, arguments.shards, arguments.set
    )
    n_tasks = planned["tasks"]
    # The actors import the shared client too.
    here = os.path.dirname(os.path.abspath(__file__))
    ray.init(address=arguments.address, runtime_env={"working_dir": here})
    workers = min(arguments.workers, n_tasks)
    tasks = ray.data.from_items([{"task": task} for task in range(n_tasks)], override_num_blocks=n_tasks)
    answers = tasks.map_batches(
        Extractor,
        fn_constructor_args=(arguments,),
        batch_format="pyarrow",
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=arguments.cpus,
        num_gpus=arguments.gpus,
    )
    answers = [json.loads(row["answer"]) for row in answers.take_all()]
    committed = frostbert_workers.finish(answers, n_tasks, arguments.out, arguments.program, arguments.answers)
    print(json.dumps(committed))


if __name__ == "__main__":
    main()
