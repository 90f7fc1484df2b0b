"""Tests of frostbert_workers with a stand-in for the program: `python3 -m unittest discover distributed`."""

import json
import os
import pathlib
import tempfile
import threading
import time
import unittest

import frostbert_workers

N_TASKS = 12

# Plans 12 tasks, does them, and fails as FAKE says.
PROGRAM = f"""#!/usr/bin/env python3
import json, os, sys, time
command, fake = sys.argv[1], os.environ.get("FAKE", "")
if command == "plan":
    os.makedirs(sys.argv[sys.argv.index("--out") + 1] + "/receipts")
    print(json.dumps({{"tasks": {N_TASKS}}}))
    sys.exit()
root = sys.argv[2]
if command == "commit":
    print(json.dumps({{"documents": len(os.listdir(root + "/receipts"))}}))
    sys.exit()
if command == "model":
    if fake == "no hub":
        sys.exit("error: the hub cannot be reached")
    with open(sys.argv[5], "a") as file:
        file.write("begun" + chr(10))
        file.flush()
        time.sleep(0.3)
        file.write("ended" + chr(10))
    print("{{}}")
    sys.exit()
print("note: the model is loaded", file=sys.stderr)
for line in sys.stdin:
    task = int(line)
    with open(f"{{root}}/tries-{{task}}", "a") as file:
        file.write("x")
    tries = os.path.getsize(f"{{root}}/tries-{{task}}")
    if fake == "ends" and task % 3 == 0 and tries == 1:
        print("error: out of luck", file=sys.stderr)
        sys.exit(1)
    if fake == "always ends" and task == 5:
        print("error: out of luck", file=sys.stderr)
        sys.exit(1)
    if fake == "hangs" and task == 4 and tries == 1:
        time.sleep(100)
    if fake == "babbles" and task == 6 and tries == 1:
        print("hello", flush=True)
        continue
    answer = {{"task": task, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}}
    if fake == "poisoned" and task == 7:
        answer.update(status="failed", error="a text holds NaN")
    else:
        answer["status"] = "skipped" if os.path.exists(f"{{root}}/receipts/{{task}}") else "done"
        open(f"{{root}}/receipts/{{task}}", "w").close()
    print(json.dumps(answer), flush=True)
"""


class WorkersTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.program = os.path.join(folder.name, "program")
        pathlib.Path(self.program).write_text(PROGRAM)
        os.chmod(self.program, 0o755)
        self.out = os.path.join(folder.name, "out")
        os.mkdir(self.out)
        self.addCleanup(os.environ.pop, "FAKE", None)

    def extract(self, fake="", **options):
        """Does all tasks with a program that fails so, and returns the answers and how often each was tried."""
        os.environ["FAKE"] = fake
        n_tasks = frostbert_workers.plan("pipeline.toml", self.out, self.program)["tasks"]
        self.assertEqual(n_tasks, N_TASKS)
        worker = frostbert_workers.Worker(self.out, self.program, **options)
        answers = [worker.run(task) for task in range(n_tasks)]
        worker.close()
        return answers, [os.path.getsize(f"{self.out}/tries-{task}") for task in range(n_tasks)]

    def finish(self, answers):
        return frostbert_workers.finish(answers, N_TASKS, self.out, self.program)

    def test_every_task_is_done_once_by_one_process_and_committed(self):
        answers, tries = self.extract(gpu=3)
        self.assertEqual({answer["status"] for answer in answers}, {"done"})
        self.assertEqual({answer["gpu"] for answer in answers}, {"3"})
        self.assertEqual(tries, [1] * N_TASKS)
        self.assertEqual(len({answer["worker"] for answer in answers}), 1)
        times = [time for answer in answers for time in (answer["began"], answer["ended"])]
        self.assertEqual(times, sorted(times))
        file = f"{self.out}/answers.jsonl"
        frostbert_workers.finish(reversed(answers), N_TASKS, self.out, self.program, file)
        written = [json.loads(line) for line in pathlib.Path(file).read_text().splitlines()]
        self.assertEqual(written, answers)
        self.assertEqual(self.finish(answers), {"documents": N_TASKS})

    def test_a_worker_that_ends_hangs_or_babbles_is_started_again(self):
        begun = time.monotonic()
        for number, fake in enumerate(["ends", "hangs", "babbles"]):
            self.out = f"{self.out}-{number}"
            answers, tries = self.extract(fake, patience=5.0)
            self.assertEqual(len(self.finish(answers)), 1, fake)
            self.assertEqual(sum(tries), N_TASKS + (4 if fake == "ends" else 1), fake)
        # The one that hangs would sleep for longer.
        self.assertLess(time.monotonic() - begun, 90)

    def test_a_task_that_no_worker_survives_is_listed_and_the_job_fails(self):
        answers, tries = self.extract("always ends")
        self.assertEqual(tries[5], 3)
        with self.assertRaises(SystemExit) as raised:
            self.finish(answers)
        told = str(raised.exception)
        self.assertIn("1 of 12 tasks failed", told)
        self.assertIn("task 5: 3 workers failed at it; the last: it ended with exit code 1; error: out of luck", told)

    def test_a_task_with_a_text_that_cannot_be_encoded_is_not_tried_again(self):
        answers, tries = self.extract("poisoned")
        self.assertEqual(tries, [1] * N_TASKS)
        with self.assertRaises(SystemExit) as raised:
            self.finish(answers)
        self.assertIn("task 7: a text holds NaN", str(raised.exception))

    def test_a_task_without_an_answer_is_listed(self):
        answers, _ = self.extract()
        with self.assertRaises(SystemExit) as raised:
            self.finish(answers[1:])
        self.assertIn("task 0: no answer", str(raised.exception))

    def test_a_program_that_is_missing_is_told(self):
        worker = frostbert_workers.Worker(self.out, "/nowhere/frostbert")
        answer = worker.run(0)
        self.assertEqual(answer["status"], "failed")
        self.assertIn("/nowhere/frostbert", answer["error"])

    def test_a_model_is_pulled_under_a_lock(self):
        folder = f"{self.out}/models/name"
        pulls = [
            threading.Thread(target=frostbert_workers.pull_once, args=("hf:owner/name", folder, self.program))
            for _ in range(3)
        ]
        for pull in pulls:
            pull.start()
        for pull in pulls:
            pull.join()
        self.assertEqual(pathlib.Path(folder).read_text(), "begun\nended\n" * 3)

    def test_a_model_that_cannot_be_pulled_is_told(self):
        os.environ["FAKE"] = "no hub"
        self.addCleanup(os.environ.pop, "FAKE")
        with self.assertRaises(frostbert_workers.WorkerFailed) as raised:
            frostbert_workers.pull_once("hf:owner/name", f"{self.out}/models/name", self.program)
        self.assertIn("the hub cannot be reached", str(raised.exception))


if __name__ == "__main__":
    unittest.main()
