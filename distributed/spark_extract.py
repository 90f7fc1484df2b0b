#!/usr/bin/env python3
"""Extracts on a Spark cluster: `spark-submit --py-files frostbert_workers.py spark_extract.py PIPELINE --out DIR`.

Every partition is one task of the plan, so Spark's retries and speculation are harmless: a task has one receipt,
whoever did it. The process of `frostbert work` outlives the partition and does the next one of its Python worker. Spark
decides how many tasks run at the same time: set spark.task.cpus to --cpus, and with GPUs spark.task.resource.gpu.amount
to 1.
"""

import argparse
import json
import os

from pyspark.sql import SparkSession

import frostbert_workers


def extract_partition(arguments):
    """Returns the function that does the tasks of a partition, on the machine where it runs."""

    def extract(batches):
        import pyarrow
        from pyspark import TaskContext

        import frostbert_workers

        # Modules live as long as the Python worker, and so does what they hold.
        worker, had = getattr(frostbert_workers, "worker_of_process", (None, None))
        gpus = TaskContext.get().resources().get("gpu")
        gpu = gpus.addresses[0] if gpus else None
        if worker is None or gpu != had:
            # Another task may run on the GPU that the one before had.
            if worker is not None:
                worker.close()
            worker = frostbert_workers.worker_of(arguments, gpu=gpu)
            frostbert_workers.worker_of_process = worker, gpu
        for batch in batches:
            answers = [json.dumps(worker.run(task)) for task in batch.column("task").to_pylist()]
            yield pyarrow.RecordBatch.from_pydict({"answer": answers})

    return extract


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    frostbert_workers.add_arguments(parser)
    parser.add_argument("--master", help="the cluster, unless spark-submit names it")
    arguments = frostbert_workers.parse(parser)
    planned = frostbert_workers.plan(
        arguments.pipeline, arguments.out, arguments.program, arguments.shards, arguments.set
    )
    n_tasks = planned["tasks"]
    builder = SparkSession.builder.appName("frostbert")
    if arguments.master:
        builder = builder.master(arguments.master)
    session = builder.getOrCreate()
    session.sparkContext.addPyFile(os.path.abspath(frostbert_workers.__file__))
    rows = session.sparkContext.parallelize([(task,) for task in range(n_tasks)], n_tasks)
    tasks = session.createDataFrame(rows, "task long")
    answers = tasks.mapInArrow(extract_partition(arguments), "answer string").collect()
    answers = [json.loads(row["answer"]) for row in answers]
    session.stop()
    committed = frostbert_workers.finish(answers, n_tasks, arguments.out, arguments.program, arguments.answers)
    print(json.dumps(committed))


if __name__ == "__main__":
    main()
