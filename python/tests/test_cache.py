"""What is read of a cache, and what is refused."""

import json
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
from workshop import TEXTS, workshop

import frostbert
from frostbert import _shards, cache as cache_module


class InWorkshop(unittest.TestCase):
    """Tests share a folder with a cache of the twelve texts."""

    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(workshop())
        cls.path = frostbert.extract("reviews.toml", quiet=True).cache
        cls.keys = [frostbert.key_of(text) for text, _ in TEXTS]


class Reading(InWorkshop):
    def setUp(self):
        self.cache = frostbert.open(self.path)
        self.addCleanup(self.cache.close)

    def test_rows_of_texts_are_those_of_their_keys(self):
        states = self.cache["mean-L02"]
        place = {key: row for row, key in enumerate(self.cache.keys_of("mean-L02").to_pylist())}
        rows = self.cache.rows(self.keys + self.keys[:2], "mean-L02")
        for key, row in zip(self.keys + self.keys[:2], rows):
            self.assertEqual(row.tobytes(), states[place[key]].tobytes())

    def test_a_mean_is_the_mean_of_the_tokens_of_its_document(self):
        means = self.cache.rows(self.keys, "mean-L02").astype(np.float32)
        tokens = self.cache.ragged(self.keys, "tokens-L02")
        self.assertEqual(len(tokens), len(self.keys))
        for mean, rows in zip(means, tokens):
            np.testing.assert_allclose(rows.astype(np.float32).mean(axis=0), mean, atol=4e-3)

    def test_batches_of_every_size_are_the_rows_in_order(self):
        for state in self.cache.states:
            whole, offsets = self.cache[state], self.cache.offsets(state)
            for size in (1, 5, 12, 100):
                batches = list(self.cache.batches(state, size))
                np.testing.assert_array_equal(np.concatenate([batch.values for batch in batches]), whole)
                lengths = np.concatenate([np.diff(batch.offsets) for batch in batches])
                np.testing.assert_array_equal(lengths, np.diff(offsets))
                self.assertTrue(all(len(batch) == size for batch in batches[:-1]))
                keys = pa.concat_arrays([batch.keys for batch in batches])
                self.assertTrue(keys.equals(self.cache.keys_of(state)))

    def test_a_table_has_keys_and_fixed_size_lists_and_streams_as_such(self):
        table = self.cache.to_arrow("mean-L02", "tokens-L02", dtype="f32")
        self.assertEqual(table.column_names, ["key", "mean-L02", "tokens-L02"])
        self.assertEqual(table.schema.field("mean-L02").type, pa.list_(pa.float32(), 32))
        means = np.array(table["mean-L02"].to_pylist(), np.float32)
        np.testing.assert_array_equal(means, self.cache["mean-L02"].astype(np.float32))
        lengths = [len(rows) for rows in table["tokens-L02"].to_pylist()]
        self.assertEqual(lengths, np.diff(self.cache.offsets("tokens-L02")).tolist())
        streamed = pa.table(self.cache)
        self.assertTrue(streamed.equals(self.cache.to_arrow()))
        self.assertEqual(streamed.column_names, ["key", "mean-L02"])

    def test_states_of_different_documents_are_joined_by_key(self):
        fewer = [one for one in self.cache._parts_of("mean-L02")]
        kept = _shards.Part(fewer[0].shard, fewer[0].keys.take(pa.array([7, 3, 5])), np.arange(4), np.array([7, 3, 5]))
        with mock.patch.dict(self.cache._parts, {"mean-L02": [kept]}):
            table = self.cache.to_arrow("tokens-L02", "mean-L02")
            means = self.cache["mean-L02"]
        self.assertEqual(table.num_rows, 3)
        self.assertEqual(table["key"].to_pylist(), self.cache.keys.take(pa.array([3, 5, 7])).to_pylist())
        whole = self.cache["mean-L02"]
        np.testing.assert_array_equal(means, whole[[7, 3, 5]])
        got = np.array(table["mean-L02"].to_pylist(), np.float16)
        np.testing.assert_array_equal(got, whole[[3, 5, 7]])

    def test_a_document_in_two_shards_is_read_from_the_first(self):
        part = self.cache._parts_of("tokens-L02")[0]
        first = _shards.Part(part.shard, part.keys.slice(0, 3), part.offsets[:4])
        parts = cache_module._without_repeats([first, part])
        self.assertEqual([len(one.keys) for one in parts], [3, 9])
        np.testing.assert_array_equal(parts[1].picked, np.arange(part.offsets[3], part.offsets[-1]))
        self.assertEqual(int(parts[1].offsets[-1]), len(parts[1].picked))

    def test_texts_that_are_not_in_the_cache_are_counted_and_the_first_is_named(self):
        absent = frostbert.key_of("never seen")
        with self.assertRaises(frostbert.MissingError) as raised:
            self.cache.rows([self.keys[0], absent], "mean-L02")
        self.assertIn("1 of 2 documents", str(raised.exception))
        self.assertIn(absent.hex(), str(raised.exception))

    def test_a_state_that_is_not_there_is_answered_with_those_that_are(self):
        with self.assertRaises(LookupError) as raised:
            self.cache["mean-L01"]
        self.assertIn("mean-L02, tokens-L02", raised.exception.hint)
        self.assertNotIn("mean-L01", self.cache)

    def test_several_rows_of_a_document_are_not_taken_for_one(self):
        with self.assertRaises(frostbert.UsageError):
            self.cache.rows(self.keys, "tokens-L02")
        with self.assertRaises(TypeError):
            self.cache.rows(["a good film"], "mean-L02")

    def test_alignment_has_a_row_for_each_token_and_characters_of_its_text(self):
        texts = {frostbert.key_of(text): text for text, _ in TEXTS}
        table = self.cache.alignment("tokens-L02").to_pydict()
        self.assertEqual(len(table["doc"]), len(self.cache["tokens-L02"]))
        keys = self.cache.keys_of("tokens-L02").to_pylist()
        words = {}
        for doc, word, start, end in zip(table["doc"], table["word"], table["char_start"], table["char_end"]):
            if word >= 0:
                words.setdefault(keys[doc], []).append(texts[keys[doc]][start:end])
        self.assertEqual(words[frostbert.key_of("a good film")], ["a", "good", "film"])
        self.assertEqual(self.cache.alignment("mean-L02").column_names, ["key", "n_tokens", "truncated"])

    def test_a_torch_dataset_has_tensors_and_numbers_of_labels(self):
        try:
            import torch
        except ImportError:
            self.skipTest("torch is not installed")
        labels = {frostbert.key_of(text): label for text, label in TEXTS[:4]}
        dataset = self.cache.torch("mean-L02", labels)
        self.assertEqual((len(dataset), dataset.classes), (4, ["bad", "good"]))
        for item, key in enumerate(dataset.keys.to_pylist()):
            states, label = dataset[item]
            np.testing.assert_array_equal(states.numpy(), self.cache.rows([key], "mean-L02")[0])
            self.assertEqual(dataset.classes[int(label)], labels[key])
        loader = torch.utils.data.DataLoader(dataset, batch_size=3)
        self.assertEqual([list(states.shape) for states, _ in loader], [[3, 32], [1, 32]])
        self.assertEqual(self.cache.torch("tokens-L02")[0].shape[1], 32)
        with self.assertRaises(ValueError):
            self.cache.torch("mean-L02", ["good"])


class Refusals(InWorkshop):
    def change(self, name, content):
        path = Path(self.path) / name
        before = path.read_bytes()
        self.addCleanup(path.write_bytes, before)
        path.write_bytes(content(before))

    def test_a_manifest_that_was_edited_is_refused(self):
        self.change("manifest.json", lambda raw: raw.replace(b'"documents": 12', b'"documents": 13', 1))
        with self.assertRaises(frostbert.DataError) as raised:
            frostbert.open(self.path)
        self.assertIn("checksum", raised.exception.message)
        self.assertIn("cache verify --repair", raised.exception.hint)

    def test_a_state_with_one_wrong_bit_is_refused_unless_nothing_is_to_be_verified(self):
        def flipped(raw):
            changed = bytearray(raw)
            changed[len(raw) // 2] ^= 1
            return bytes(changed)

        self.change("shard-000000/mean-L02.parquet", flipped)
        with self.assertRaises(frostbert.DataError) as raised:
            frostbert.open(self.path)["mean-L02"]
        self.assertIn("BLAKE3", raised.exception.message)
        self.assertEqual(frostbert.open(self.path, verify=False)["mean-L02"].shape, (12, 32))

    def test_a_truncated_file_is_refused_in_any_case(self):
        self.change("shard-000000/mean-L02.parquet", lambda raw: raw[:-1])
        with self.assertRaises(frostbert.DataError):
            frostbert.open(self.path, verify=False)["mean-L02"]

    def test_a_folder_of_caches_has_to_be_one_or_named(self):
        self.assertEqual(frostbert.open("cache").path, Path(self.path))
        other = Path("cache/0000000000000000")
        other.mkdir()
        self.addCleanup(other.rmdir)
        (other / "manifest.json").write_text("{}")
        self.addCleanup((other / "manifest.json").unlink)
        with self.assertRaises(frostbert.MissingError) as raised:
            frostbert.open("cache")
        self.assertIn("holds 2 caches", raised.exception.message)
        with self.assertRaises(frostbert.MissingError):
            frostbert.open("tiny_bert")

    def test_reading_keeps_others_from_removing_and_counts_as_use(self):
        about = Path(self.path) / "about.json"
        if about.exists():
            import os

            os.utime(about, (0, 0))
        with frostbert.open(self.path):
            import fcntl
            import os

            folder = os.open(self.path, os.O_RDONLY)
            self.addCleanup(os.close, folder)
            with self.assertRaises(OSError):
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if about.exists():
            self.assertGreater(about.stat().st_mtime, 0)
        self.assertEqual(json.loads((Path(self.path) / "manifest.json").read_text())["documents"], 12)


if __name__ == "__main__":
    unittest.main()
