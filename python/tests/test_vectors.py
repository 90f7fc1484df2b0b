"""Heads over vectors of one's own."""

import unittest
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from workshop import workshop

import frostbert
from frostbert import vectors


def separable(n_rows=120, width=16, classes=3, seed=5):
    random = np.random.default_rng(seed)
    y = np.arange(n_rows) % classes
    X = random.standard_normal((n_rows, width)).astype(np.float32)
    X[np.arange(n_rows), y] += 3
    return X, y


class Files(unittest.TestCase):
    def setUp(self):
        self.enterContext(workshop())

    def test_a_file_is_named_by_its_content_and_holds_it(self):
        X, y = separable()
        source = vectors.write(X, y, "vectors")
        self.assertEqual(source, vectors.write(X.copy(), list(y), "vectors"))
        self.assertNotEqual(source, vectors.write(X, y[::-1], "vectors"))
        self.assertEqual(len(list(Path("vectors").iterdir())), 2)
        table = pq.read_table(source["path"])
        self.assertEqual(table.schema.field("embedding").type, pa.list_(pa.float32(), 16))
        np.testing.assert_array_equal(np.array(table["embedding"].to_pylist(), np.float32), X)
        self.assertEqual(table["label"].to_pylist(), [str(label) for label in y])

    def test_types_of_values_are_kept(self):
        for dtype in ("f2", "f4", "f8"):
            self.assertEqual(vectors.as_vectors(np.ones((2, 3), dtype)).dtype, np.dtype(dtype))
        self.assertEqual(vectors.as_vectors([[1, 2], [3, 4]]).dtype, np.dtype("f4"))

    def test_what_are_no_vectors_is_refused(self):
        for wrong in (np.zeros(3), np.zeros((2, 0)), [["a"]], [[1.0], None]):
            with self.assertRaises(frostbert.DataError):
                vectors.as_vectors(wrong)
        with self.assertRaises(frostbert.DataError):
            vectors.write(np.zeros((2, 3)), [1], "vectors")
        with self.assertRaises(frostbert.DataError):
            vectors.write(np.zeros((1, 3)), [["a,b"]], "vectors")
        with self.assertRaises(frostbert.UsageError):
            frostbert.fit(*separable(), model={"path": "tiny_bert"})
        with self.assertRaisesRegex(frostbert.UsageError, "data.test"):
            frostbert.fit(*separable(), data={"test": {"path": "x.parquet"}})
        for ragged in ([[1, 2], [3, 4], [5]], pa.array([[1.0, 2.0], [3.0, 4.0], [5.0]])):
            with self.assertRaisesRegex(frostbert.DataError, r"row 2 \(from 0\) has 1 values, the first row 2"):
                vectors.as_vectors(ragged)
        for nested in ([[1, 2], [3, [4]]], [[1, 2], [[3], [4]]]):
            with self.assertRaisesRegex(frostbert.DataError, r"row 1 \(from 0\) holds lists") as raised:
                frostbert.fit(nested, ["a", "b"])
            self.assertEqual(raised.exception.hint, "give each row as a flat list of numbers")
        with self.assertRaisesRegex(TypeError, "folder"):
            frostbert.sweep("reviews.toml", folder="elsewhere")
        self.assertFalse(Path("vectors").exists())
        X, y = separable()
        X[7, 3] = np.nan
        with self.assertRaises(frostbert.DataError) as raised:
            frostbert.fit(X, y, quiet=True)
        self.assertEqual(raised.exception.line, 8)
        self.assertIn("NaN as value 4 of 16", raised.exception.message)

    def test_rows_for_testing_come_with_their_labels(self):
        X, y = separable()
        for part in ("validation", "test"):
            for wrong in (X, (X, y, y), [X], "ab"):
                for call in (frostbert.fit, frostbert.sweep):
                    with self.assertRaisesRegex(TypeError, rf"{part} is a pair \(X, y\)"):
                        call(X, y, **{part: wrong})
        self.assertFalse(Path("vectors").exists())

    def test_columns_of_arrow_and_numpy_are_vectors_and_labels(self):
        X, y = separable(n_rows=4)
        source = vectors.write(X, y, "vectors")
        column = pa.FixedSizeListArray.from_arrays(pa.array(X.reshape(-1)), 16)
        objects = np.empty(4, object)
        objects[:] = list(X)
        for same in (column, pa.chunked_array([column.slice(0, 1), column.slice(1)]), list(X), objects):
            self.assertEqual(vectors.write(same, pa.array(y), "vectors"), source)
        self.assertEqual(vectors.task_of(pa.array([0.5, 1.0])), "regression")
        with self.assertRaisesRegex(frostbert.DataError, r"row 1 \(from 0\) has no label"):
            vectors.write(X, pa.array(["a", None, "b", "c"]), "vectors")

    def test_sets_of_labels_are_written_in_order(self):
        rows = [{"b", "a", "c"}, frozenset(("c", "a"))]
        table = pq.read_table(vectors.write(np.zeros((2, 3)), rows, "vectors")["path"])
        self.assertEqual(table["label"].to_pylist(), ["a,b,c", "a,c"])

    def test_labels_are_one_for_each_row(self):
        X = np.zeros((2, 3))
        for wrong in (np.zeros((2, 1)), np.zeros((2, 2), int), np.array(3)):
            with self.assertRaisesRegex(frostbert.DataError, "one dimension"):
                vectors.write(X, wrong, "vectors")
            with self.assertRaisesRegex(frostbert.DataError, "one dimension"):
                frostbert.fit(X, wrong)
        for wrong in (["a", None], [1.5, float("nan")], np.array([1.0, np.nan], "f4"), [["a"], None], [["a"], [None]]):
            with self.assertRaisesRegex(frostbert.DataError, r"row 1 \(from 0\) has no label"):
                vectors.write(X, wrong, "vectors")
        self.assertFalse(Path("vectors").exists())

    def test_the_task_says_what_labels_mean(self):
        def labels(y, task=None):
            table = pq.read_table(vectors.write(np.zeros((2, 3)), y, "vectors", task)["path"])
            return table["label"].to_pylist()

        self.assertEqual(labels([0, 1]), ["0", "1"])
        self.assertEqual(labels([0, 1], "regression"), [0.0, 1.0])
        self.assertEqual(labels([0.5, 1.5], "classification"), ["0.5", "1.5"])
        self.assertEqual(labels(np.array([[1, 0, 1], [0, 0, 0]]), "multilabel"), ["0,2", ""])
        self.assertEqual(labels(["a,b", "a"], "multilabel"), ["a,b", "a"])
        twos = np.full((2, 2), 2)
        for y, task in (([["a"], ["b"]], "classification"), (["a", "b"], "regression"), (twos, "multilabel")):
            with self.assertRaises(frostbert.DataError):
                labels(y, task)


class Training(unittest.TestCase):
    def setUp(self):
        self.enterContext(workshop())

    def test_a_head_is_trained_and_applies_to_such_vectors(self):
        X, y = separable()
        finished = frostbert.fit(X, y, test=separable(seed=6), quiet=True, head={"kind": "logistic", "C": 1.0})
        self.assertGreater(finished.metrics["test"]["accuracy"], 0.9)
        self.assertEqual(finished.head.labels, ["0", "1", "2"])
        self.assertGreater((finished.head.predict(X) == y.astype(str)).mean(), 0.9)
        self.assertEqual(frostbert.load(finished.path).predict_proba(X).shape, (120, 3))
        with self.assertRaises(frostbert.UsageError) as raised:
            finished.predict(["a good film"])
        self.assertEqual(raised.exception.hint, "frostbert.load(run).predict(X)")

    def test_a_sweep_compares_heads_over_vectors(self):
        X, y = separable()
        found = frostbert.sweep(X, y, quiet=True, head={"kind": "logistic"}, sweep={"C": [0.01, 1.0], "folds": 3})
        self.assertEqual(found.leaderboard.num_rows, 2)
        self.assertGreater((found.head.predict(X) == y.astype(str)).mean(), 0.9)

    def test_numbers_and_sets_of_labels_have_their_tasks(self):
        X, y = separable()
        numbers = frostbert.fit(X, X[:, 0] * 2.0, quiet=True, name="numbers", head={"kind": "ridge", "lambda": 1e-3})
        np.testing.assert_allclose(numbers.head.predict(X), X[:, 0] * 2, atol=0.1)
        sets = [["even"] * (label % 2 == 0) + ["small"] * (label < 2) for label in y.tolist()]
        several = frostbert.fit(X, sets, quiet=True, name="sets")
        self.assertEqual(sorted(several.head.labels), ["even", "small"])


if __name__ == "__main__":
    unittest.main()
