"""What the adapters to engines share: a worker process that does tasks of a plan, and what the driver does around it.

`frostbert work` takes numbers of tasks on standard input, one per line, and answers each with one line of JSON. A task
may be done any number of times: the first receipt counts. So a task that failed for a reason of the machine is simply
tried again, here or elsewhere. Needs Python 3.10 and nothing else; runs on Linux, as frostbert does.
"""

import collections
import fcntl
import json
import os
import queue
import socket
import subprocess
import threading
import time

FINISHED = ("done", "skipped")


class WorkerFailed(Exception):
    """A worker process ended or made no progress, or a worker's model cannot be fetched."""


class Worker:
    """A process of `frostbert work`, started with its first task and again after a failure. Loads the model once."""

    def __init__(
        self,
        out,
        program="frostbert",
        model=None,
        scratch=None,
        threads=None,
        gpu=None,
        folder=None,
        tries=3,
        patience=1800.0,
    ):
        """`gpu`: what CUDA_VISIBLE_DEVICES is set to; an engine that sets it itself needs none. `folder`: what relative
        paths of the pipeline, such as that of the model, are relative to. `patience`: seconds without a word from the
        process, which reports progress every ten seconds, until it is killed."""
        self.command = [program, "work", str(out)]
        for option, value in (("--model", model), ("--scratch", scratch), ("--threads", threads)):
            if value is not None:
                self.command += [option, str(value)]
        self.folder = folder
        self.environment = dict(os.environ)
        if gpu is not None:
            self.environment["CUDA_VISIBLE_DEVICES"] = str(gpu)
        self.tries = tries
        self.patience = patience
        self.process = None

    def run(self, task):
        """Does a task and returns its answer, with the worker that gave it and the times, in seconds since 1970, at
        which it began and ended. A worker that fails is started again; after `tries` of them, the answer is
        `"status": "failed"`, like that of a task with a text that cannot be encoded, which is not tried again."""
        began = time.time()
        answer = self._try(task)
        worker = f"{socket.gethostname()}:{os.getpid()}"
        return {**answer, "worker": worker, "began": began, "ended": time.time()}

    def _try(self, task):
        reason = ""
        for _ in range(self.tries):
            try:
                return self._ask(task)
            except WorkerFailed as error:
                reason = str(error)
                self.close()
        return {"task": task, "status": "failed", "error": f"{self.tries} workers failed at it; the last: {reason}"}

    def _ask(self, task):
        if self.process is None:
            try:
                self._start()
            except OSError as error:
                raise WorkerFailed(f"cannot start {self.command[0]}: {error}") from None
        try:
            self.process.stdin.write(f"{task}\n")
            self.process.stdin.flush()
        except OSError:
            pass  # It has ended, and what it said on standard error tells why.
        while True:
            try:
                stream, line = self.said.get(timeout=self.patience)
            except queue.Empty:
                raise WorkerFailed(f"no progress for {self.patience:.0f} s; {self._last_words()}") from None
            if stream == "end":
                raise WorkerFailed(f"it ended with exit code {self.process.wait()}; {self._last_words()}")
            if stream == "out":
                try:
                    answer = json.loads(line)
                    if answer["task"] == task:
                        return answer
                except (ValueError, KeyError, TypeError):
                    raise WorkerFailed(f"it answered {line[:200]!r}") from None
                raise WorkerFailed(f"it answered for task {answer['task']}, and was asked for {task}")

    def _start(self):
        self.said = queue.Queue()
        self.errors = collections.deque(maxlen=20)
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self.environment,
        )
        to_errors = (self.process.stderr, "err", self.said, self.errors)
        errors = threading.Thread(target=_pass_on, args=to_errors, daemon=True)
        errors.start()
        to_answers = (self.process.stdout, self.said, errors)
        threading.Thread(target=_pass_on_to_the_end, args=to_answers, daemon=True).start()

    def _last_words(self):
        words = [line for line in self.errors if line.startswith(("error: ", "hint: "))] or list(self.errors)[-3:]
        return " ".join(words) or "it said nothing"

    def close(self):
        """Ends the process. What has a receipt is kept."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
                try:
                    stream.close()
                except OSError:
                    pass
            self.process = None

    def __del__(self):
        if getattr(self, "process", None) is not None:
            self.close()


def _pass_on(stream, name, said, kept=None):
    try:
        for line in stream:
            if kept is not None:
                kept.append(line.strip())
            said.put((name, line))
    except ValueError:
        pass  # It was closed.


def _pass_on_to_the_end(stream, said, errors):
    _pass_on(stream, "out", said)
    # What it says last is on standard error. A process that it left behind may keep that open.
    errors.join(timeout=5)
    said.put(("end", ""))


def plan(pipeline, out, program="frostbert", shards=1, overrides=()):
    """Plans an extraction, or finds the same plan, and returns what `frostbert plan --json` says."""
    command = [program, "plan", str(pipeline), "--out", str(out), "--shards", str(shards), "--json"]
    for override in overrides:
        command += ["--set", override]
    return _json_of(command)


def commit(out, program="frostbert"):
    """Makes a cache of a plan whose tasks are all done, and returns what `frostbert commit --json` says."""
    return _json_of([program, "commit", str(out), "--json"])


def finish(answers, n_tasks, out, program="frostbert", file=None):
    """Commits if every task is done. Otherwise lists those that are not, and ends the program with exit code 1. Writes
    all answers to `file`, one a line, if there is one."""
    answers = {answer["task"]: answer for answer in answers}
    if file is not None:
        with open(file, "w") as lines:
            lines.writelines(f"{json.dumps(answers[task])}\n" for task in sorted(answers))
    failed = [answer for answer in answers.values() if answer["status"] not in FINISHED]
    failed += [{"task": task, "error": "no answer"} for task in range(n_tasks) if task not in answers]
    if failed:
        failed.sort(key=lambda answer: answer["task"])
        lines = [f"  task {answer['task']}: {answer.get('error', 'failed')}" for answer in failed]
        told = f"error: {len(failed)} of {n_tasks} tasks failed, and nothing is committed:"
        raise SystemExit("\n".join([told, *lines]))
    return commit(out, program)


def pull_once(model, folder, program="frostbert"):
    """Fetches a model of the hub (`hf:owner/name@revision`) to a folder of this machine, and returns the folder. Of
    several workers on a machine one fetches, and the others wait; files that are there are only checked."""
    folder = os.path.abspath(folder)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [program, "model", "pull", model, "--to", folder, "--yes", "--json"]
        ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode != 0:
        raise WorkerFailed(f"{model} cannot be fetched: {ran.stderr.strip()}")
    return folder


def _json_of(command):
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if ran.returncode != 0:
        raise SystemExit(ran.returncode)  # It has said why on standard error.
    return json.loads(ran.stdout)


def add_arguments(parser):
    """Adds the arguments that all adapters share."""
    parser.add_argument("pipeline", help="the pipeline file")
    parser.add_argument("--out", required=True, help="the folder that all machines see, or s3://BUCKET/PREFIX")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a pipeline's value")
    parser.add_argument("--shards", type=int, default=1, help="number of shards in a task [default: 1]")
    parser.add_argument("--cpus", type=int, default=1, help="CPU cores of a worker [default: 1]")
    parser.add_argument("--model", help="the model's folder on the workers [default: that of the pipeline]")
    parser.add_argument("--pull", metavar="hf:OWNER/NAME", help="fetch the model to --model, once on each machine")
    parser.add_argument("--scratch", help="a folder on the workers' own disks")
    parser.add_argument("--program", default="frostbert", help="the program, on the driver and on the workers")
    parser.add_argument("--tries", type=int, default=3, help="number of processes that try a task [default: 3]")
    parser.add_argument("--answers", metavar="FILE", help="write what came of each task, one JSON object a line")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds without progress until a worker ends")


def parse(parser):
    """Parses the arguments, and makes paths absolute: workers have other current folders."""
    arguments = parser.parse_args()
    if arguments.pull and not arguments.model:
        parser.error("--pull needs --model, the folder to put it in")
    if "://" not in arguments.out:
        arguments.out = os.path.abspath(arguments.out)
    arguments.folder = os.getcwd()
    return arguments


def worker_of(arguments, gpu=None):
    """Makes the worker that the arguments describe, on the machine where it is to run."""
    if arguments.pull:
        pull_once(arguments.pull, os.path.join(arguments.folder, arguments.model), arguments.program)
    return Worker(
        arguments.out,
        program=arguments.program,
        model=arguments.model,
        scratch=arguments.scratch,
        threads=arguments.cpus,
        gpu=gpu,
        # On a machine that does not have it, paths have to be absolute.
        folder=arguments.folder if os.path.isdir(arguments.folder) else None,
        tries=arguments.tries,
        patience=arguments.patience,
    )
