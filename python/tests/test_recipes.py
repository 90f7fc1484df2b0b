"""Runs the recipes of docs/python.md, each section by itself."""

import contextlib
import csv
import importlib.util
import io
import re
import unittest
from pathlib import Path

from workshop import REPOSITORY, workshop

import frostbert

#: The cache that the recipes name.
NAMED = "421d16ab30b554b2"

PIPELINE = """\
name = "mine"

[model]
path = "models/minilm"
device = "cpu"

[data]
train = { path = "mine.csv" }

[cache]
store = ["mean", "tokens"]
"""


def sections():
    """The Python of each section of the page, by its title."""
    page = (REPOSITORY / "docs/python.md").read_text(encoding="utf-8")
    for section in page.split("\n## ")[1:]:
        blocks = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
        if blocks:
            yield section.partition("\n")[0], "\n".join(blocks)


def missing_packages(source):
    imported = re.findall(r"^(?:from|import) (.+?)(?: import .*)?$", source, re.MULTILINE)
    names = {name.strip().partition(".")[0] for line in imported for name in line.split(",")}
    return sorted(name for name in names if importlib.util.find_spec(name) is None)


class Recipes(unittest.TestCase):
    def setUp(self):
        self.enterContext(workshop())
        if not (REPOSITORY / "models/minilm/config.json").is_file():
            self.skipTest("there is no default model: make setup")
        Path("models").symlink_to(REPOSITORY / "models")
        with (REPOSITORY / "data/reviews.csv").open(newline="", encoding="utf-8") as file:
            self.reviews = list(csv.DictReader(file))[:90]
        with open("mine.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
            rows.writeheader()
            rows.writerows(self.reviews)
        Path("mine.toml").write_text(PIPELINE)

    def test_every_recipe_runs_where_its_packages_are(self):
        found = frostbert.run("mine.toml", quiet=True)
        cache = self.enterContext(found.extraction.open())
        texts = [review["text"] for review in self.reviews]
        X = cache.rows([cache.key_of(text) for text in texts], "mean-L06")
        space = {
            "frostbert": frostbert, "found": found, "cache": cache, "cache_folder": cache.path, "reviews": self.reviews,
            "texts": texts, "labels": [review["label"] for review in self.reviews], "X_new": X,
        }  # fmt: skip
        titles = []
        for title, source in sections():
            titles.append(title)
            with self.subTest(title):
                missing = missing_packages(source)
                if missing:
                    self.skipTest(f"{' and '.join(missing)} not installed")
                code = compile(source.replace(NAMED, cache.path.name), f"docs/python.md, {title}", "exec")
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    exec(code, dict(space))
        self.assertGreaterEqual(len(titles), 8)
        self.assertIn("cleanlab", titles)


if __name__ == "__main__":
    unittest.main()
