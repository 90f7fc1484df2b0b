"""Heads in numpy, compared with the predictions that the program wrote into the run."""

import unittest

import numpy as np
from workshop import TEXTS, workshop

import frostbert

#: Two backends sum in different orders; the largest difference seen is 5e-7.
TOLERANCE = 2e-6

HEADS = {
    "linear": {"head": {"kind": "linear", "layers": [2]}},
    "logistic": {"head": {"kind": "logistic", "C": 1.0, "layers": [2]}},
    "ridge": {"head": {"kind": "ridge", "lambda": 1.0, "layers": [2]}},
    "lda": {"head": {"kind": "lda", "lambda": 0.1, "layers": [2]}},
    "mix": {"head": {"kind": "linear", "layers": [0, 1, 2]}},
    "mlp": {"head": {"kind": "mlp", "hidden": [8, 8, 4], "skip": True, "layer_norm": True, "layers": [2]}},
    "relu": {"head": {"kind": "mlp", "hidden": [8], "activation": "relu", "layers": [1, 2]}},
    "tanh": {"head": {"kind": "mlp", "hidden": [8], "activation": "tanh", "pca": 3, "layers": [2]}},
    "attention": {"head": {"kind": "mlp", "hidden": [4], "pooling": "attention", "layers": [1, 2]}},
}


class Heads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(workshop())

    def run_of(self, name, **overrides):
        store = {"layers": "all", "store": ["mean", "tokens"]}
        return frostbert.run("reviews.toml", quiet=True, name=name, cache=store, **overrides)

    def test_probabilities_and_labels_are_those_of_the_run(self):
        for name, overrides in HEADS.items():
            with self.subTest(name):
                finished = self.run_of(name, **overrides)
                told, head = finished.predictions, finished.head
                with finished.extraction.open() as cache:
                    states = head.states_of(cache, told["key"])
                expected = np.stack([told[f"p_{label}"].to_numpy() for label in head.labels], axis=1)
                np.testing.assert_allclose(head.predict_proba(states), expected, rtol=0, atol=TOLERANCE)
                self.assertEqual(head.predict(states).tolist(), told["predicted"].to_pylist())

    def test_layers_that_were_trained_with_a_head_are_left_to_predict(self):
        finished = self.run_of("layers", head={"pooling": "mean"}, train={"unfreeze": 1, "epochs": 1})
        with finished.extraction.open() as cache:
            states = finished.head.states_of(cache, finished.predictions["key"])
        with self.assertRaisesRegex(frostbert.UsageError, "train.unfreeze"):
            finished.head.predict_proba(states)

    def test_each_of_several_labels_has_a_probability_and_a_threshold(self):
        lines = [f'{text},"{label},{"warm" if "warm" in text else "other"}"' for text, label in TEXTS]
        with open("labels.csv", "w") as file:
            file.write("text,label\n" + "\n".join(lines) + "\n")
        data = {"task": "multilabel", "train": {"path": "labels.csv"}}
        finished = self.run_of("multilabel", data=data)
        told, head = finished.predictions, finished.head
        with finished.extraction.open() as cache:
            states = cache.rows(told["key"], head.states[0])
        expected = np.stack([told[f"p_{label}"].to_numpy() for label in head.labels], axis=1)
        np.testing.assert_allclose(head.predict_proba(states), expected, rtol=0, atol=TOLERANCE)
        self.assertEqual(head.predict(states), told["predicted"].to_pylist())

    def pairs(self, name, **overrides):
        rows = [f"{one},{two},{number / 4}" for number, ((one, _), (two, _)) in enumerate(zip(TEXTS, TEXTS[::-1]))]
        with open("pairs.csv", "w") as file:
            file.write("text,text_pair,label\n" + "\n".join(rows) + "\n")
        source = {"path": "pairs.csv", "text_pair": "text_pair"}
        finished = self.run_of(name, data={"train": source, **overrides.pop("data")}, **overrides)
        told = finished.predictions
        keys = [[frostbert.key_of(text) for text in told[column].to_pylist()] for column in ("text", "text_pair")]
        with finished.extraction.open() as cache:
            states = [finished.head.states_of(cache, own) for own in keys]
        predicted = finished.head.predict(*states)
        np.testing.assert_allclose(predicted, told["predicted"].to_numpy(), rtol=1e-5, atol=1e-5)
        return finished.head, states

    def test_numbers_of_pairs_are_those_of_the_run(self):
        head, states = self.pairs("numbers", data={"task": "regression"}, head={"layers": [1, 2]})
        with self.assertRaises(frostbert.UsageError):
            head.predict(states[0])
        with self.assertRaises(frostbert.UsageError):
            head.predict_proba(*states)

    def test_cosines_are_those_of_the_run(self):
        self.pairs("cosine", data={"task": "similarity"}, head={"layers": [2]})

    def test_what_does_not_fit_the_head_is_refused_with_what_would(self):
        finished = self.run_of("refused", head={"kind": "linear", "layers": [2]})
        with self.assertRaises(frostbert.UsageError) as raised:
            finished.head.predict(np.zeros((2, 31)))
        self.assertIn("expected 32 values a row (mean-L02), got 31", raised.exception.message)
        with self.assertRaises(frostbert.UsageError):
            finished.head.predict(np.zeros(32))
        with self.assertRaises(frostbert.UsageError):
            finished.head.predict(np.zeros((2, 32)), np.zeros((2, 32)))

    def test_the_newest_run_stands_for_its_folder(self):
        first = self.run_of("twice", seed=1)
        second = self.run_of("twice", seed=2)
        self.assertNotEqual(first.path, second.path)
        self.assertEqual(frostbert.load("runs/twice").path.name, second.path.name)
        with self.assertRaises(frostbert.MissingError):
            frostbert.load("runs/nothing")


if __name__ == "__main__":
    unittest.main()
