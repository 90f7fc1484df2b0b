"""The program as Python calls it: what it returns, and its errors as exceptions."""

import io
import unittest
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

import numpy as np
from workshop import TEXTS, workshop

import frostbert
from frostbert import _program, _toml


class Program(unittest.TestCase):
    def setUp(self):
        self.folder = self.enterContext(workshop())

    def test_a_dictionary_is_a_pipeline(self):
        pipeline = {
            "name": "from_python",
            "model": {"path": "tiny_bert", "device": "cpu"},
            "data": {"train": {"path": Path("reviews.csv")}},
            "cache": {"max_length": 32},
            "head": {"kind": "logistic", "C": np.float64(1.0)},
        }
        finished = frostbert.run(pipeline, quiet=True)
        self.assertEqual(finished.path, Path("runs/from_python/001"))
        self.assertEqual(finished.report["task"], "classification")
        self.assertEqual(finished.settings["head"]["kind"], "logistic")
        self.assertEqual(finished.predictions.num_rows, len(TEXTS))
        self.assertTrue(finished.html.is_file())
        self.assertEqual(len(finished.extraction.open()), len(TEXTS))

    def test_overrides_go_by_section(self):
        finished = frostbert.run("reviews.toml", quiet=True, seed=9, train={"epochs": 1, "lr": 0.5})
        self.assertEqual((finished.settings["seed"], finished.settings["train"]["lr"]), (9, 0.5))
        again = frostbert.train("reviews.toml", quiet=True, **{"train.epochs": 1})
        self.assertIsNone(again.extraction)
        self.assertEqual(again.settings["train"]["epochs"], 1)

    def test_a_sweep_has_a_leaderboard_and_a_winner(self):
        frostbert.extract("reviews.toml", quiet=True)
        sweep = {"C": [0.1, 1, 10], "folds": 2}
        found = frostbert.sweep("reviews.toml", quiet=True, head={"kind": "logistic"}, sweep=sweep)
        self.assertEqual(found.leaderboard.num_rows, 3)
        self.assertIn(found.best["settings"]["C"], (0.1, 1.0, 10.0))
        self.assertEqual(found.head.labels, ["bad", "good"])
        single = frostbert.train("reviews.toml", quiet=True)
        with self.assertRaises(frostbert.MissingError):
            single.best

    def test_the_runs_of_several_tasks_have_names(self):
        task = {"data": {"train": {"path": "reviews.csv"}}, "head": {"kind": "lda", "lambda": 0.1}}
        pipeline = {"model": {"path": "tiny_bert"}, "cache": {"max_length": 32}, "tasks": {"one": task, "two": task}}
        finished = frostbert.run(pipeline, quiet=True)
        self.assertEqual(sorted(finished.tasks), ["one", "two"])
        self.assertEqual(finished.tasks["two"].head.kind, "lda")
        with self.assertRaises(frostbert.MissingError) as raised:
            finished.predictions
        self.assertIn("run.tasks['one']", raised.exception.hint)

    def test_errors_of_the_program_have_its_message_hint_file_and_line(self):
        told = io.StringIO()
        with self.assertRaises(frostbert.MissingError) as raised, redirect_stderr(told):
            frostbert.run("reviews.toml", data={"train": {"path": "nothing.csv"}})
        self.assertEqual(raised.exception.file, "nothing.csv")
        self.assertNotIn("error:", told.getvalue())
        with self.assertRaises(frostbert.UsageError) as raised:
            frostbert.run("reviews.toml", quiet=True, head={"knd": "lda"})
        self.assertIn("knd", raised.exception.message)
        self.assertTrue(raised.exception.hint)
        Path("reviews.csv").write_text('text,label\na film,good\n"a, film\n')
        with self.assertRaises(frostbert.DataError) as raised:
            frostbert.run("reviews.toml", quiet=True)
        self.assertIsNotNone(raised.exception.line)

    def test_notes_of_the_program_are_passed_on_unless_it_is_quiet(self):
        told = io.StringIO()
        with redirect_stderr(told):
            frostbert.extract("reviews.toml")
        self.assertIn("to encode: 12 texts", told.getvalue())
        with redirect_stderr(io.StringIO()) as nothing:
            frostbert.extract("reviews.toml", quiet=True, cache={"layers": [1]})
        self.assertEqual(nothing.getvalue(), "")

    def test_a_program_that_is_not_there_is_named(self):
        for name in ("/no/frostbert", str(self.folder), "reviews.csv"):
            with self.assertRaises(frostbert.MissingError) as raised, mock.patch.dict("os.environ", FROSTBERT=name):
                frostbert.extract("reviews.toml")
            self.assertIn(f"`{name}` does not start", raised.exception.message)
            self.assertIn("FROSTBERT", raised.exception.hint)
        with self.assertRaises(frostbert.UsageError):
            frostbert.extract("reviews.toml\0")

    def test_only_caches_and_keys_need_blake3(self):
        with mock.patch.dict("sys.modules", blake3=None):
            finished = frostbert.run("reviews.toml", quiet=True)
            self.assertEqual(finished.predict(["a good film"]).num_rows, 1)
            self.assertEqual(finished.head.predict(np.zeros((2, 32))).shape, (2,))
            self.assertEqual(frostbert.fit(np.eye(20), [0, 1] * 10, quiet=True).head.labels, ["0", "1"])
            for call in (lambda: frostbert.key_of("a good film"), lambda: frostbert.open("cache")):
                with self.assertRaises(frostbert.MissingError) as raised:
                    call()
                self.assertEqual(raised.exception.hint, "pip install blake3")

    def test_embeddings_are_the_rows_of_the_cache(self):
        texts = [text for text, _ in TEXTS] + [TEXTS[0][0]]
        rows = frostbert.embed(texts, model="tiny_bert", settings={"cache": {"max_length": 32}}, dtype="f16")
        self.assertEqual((rows.shape, rows.dtype), ((13, 32), np.dtype("float16")))
        with frostbert.open("cache") as cache:
            keys = [frostbert.key_of(text) for text in texts]
            np.testing.assert_array_equal(rows, cache.rows(keys, "mean-L02"))

    def test_texts_of_an_iterator_are_embedded_and_predicted(self):
        texts = [text for text, _ in TEXTS[:3]]
        settings = {"cache": {"max_length": 32}}
        rows = frostbert.embed((text for text in texts), model="tiny_bert", settings=settings)
        np.testing.assert_array_equal(rows, frostbert.embed(texts, model="tiny_bert", settings=settings))
        finished = frostbert.run("reviews.toml", quiet=True)
        self.assertEqual(finished.predict(iter(texts)), finished.predict(texts))
        self.assertEqual(finished.predict([]).num_rows, 0)
        with self.assertRaisesRegex(TypeError, "not None"):
            finished.predict(None)

    def test_what_cannot_be_embedded_is_refused(self):
        with self.assertRaisesRegex(TypeError, "not one str"):
            frostbert.embed("a good film", model="tiny_bert")
        with self.assertRaisesRegex(TypeError, "not None"):
            frostbert.embed(None, model="tiny_bert")
        for nothing in ([], (text for text in ()), np.array([], str)):
            with self.assertRaisesRegex(frostbert.UsageError, "empty"):
                frostbert.embed(nothing, model="tiny_bert")
        with self.assertRaisesRegex(frostbert.UsageError, "ranges"):
            frostbert.embed(["a good film"], model="tiny_bert", quantize="int8")
        with self.assertRaises(frostbert.UsageError) as raised:
            frostbert.embed(["a good film"], model="tiny_bert", poling="cls")
        self.assertIn("--poling", raised.exception.message)

    def test_predictions_are_in_the_order_of_the_texts_and_those_of_the_head(self):
        finished = frostbert.run("reviews.toml", quiet=True)
        texts = [text for text, _ in TEXTS][::-1] + ["a, \"quoted\"\nfilm"]
        told = finished.predict(texts)
        self.assertEqual(told.num_rows, len(texts))
        with finished.extraction.open() as cache:
            states = cache.rows([frostbert.key_of(text) for text in texts[:-1]], finished.head.states[0])
        expected = finished.head.predict_proba(states)[:, 1]
        np.testing.assert_allclose(told["p_good"].to_numpy()[:-1], expected, atol=2e-6)
        with self.assertRaises(TypeError):
            finished.predict([1])
        with self.assertRaises(frostbert.UsageError):
            finished.predict(["a"], ["b", "c"])


class Toml(unittest.TestCase):
    def test_what_is_written_is_what_is_read(self):
        try:
            import tomllib
        except ImportError:
            self.skipTest("this Python has no tomllib")
        text = "".join(map(chr, range(0x20))) + "\x7f\"\\ é 😀"
        content = {
            "seed": 1, "yes": True, "no": False, "rate": 1e-05, "text": text, "list": [[1], []],
            "data": {"train": {"path": "a.csv", "a key": {"x": 1.5}}, "split": {"train": 0.5}}, "empty": {},
        }  # fmt: skip
        self.assertEqual(tomllib.loads(_toml.document(content)), content)

    def test_what_is_no_value_is_refused(self):
        for wrong in (float("nan"), object(), b"bytes"):
            with self.assertRaises((TypeError, ValueError)):
                _toml.value(wrong)
        self.assertEqual(_program.program.__module__, "frostbert._program")


if __name__ == "__main__":
    unittest.main()
