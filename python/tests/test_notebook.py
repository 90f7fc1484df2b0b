"""Runs the code of examples/quickstart.ipynb, cell by cell in one namespace, as a notebook does."""

import contextlib
import importlib.util
import io
import json
import os
import tempfile
import unittest
from pathlib import Path

from workshop import REPOSITORY

import frostbert


class Notebook(unittest.TestCase):
    def setUp(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="frostbert-")))
        for name in ("data", "models", "runtime"):
            if (REPOSITORY / name).exists():
                (folder / name).symlink_to(REPOSITORY / name)
        self.examples = folder / "examples"
        self.examples.mkdir()
        (self.examples / "runtime").symlink_to(REPOSITORY / "runtime")
        self.enterContext(contextlib.chdir(self.examples))

    def test_every_cell_of_the_quickstart_runs(self):
        missing = [name for name in ("onnxruntime", "tokenizers") if importlib.util.find_spec(name) is None]
        if missing:
            self.skipTest(f"the notebook needs {' and '.join(missing)}")
        if not (REPOSITORY / "models/minilm").exists():
            try:
                frostbert.default_model()
            except frostbert.MissingError:
                self.skipTest("there is no default model: make setup")
        notebook = json.loads((REPOSITORY / "examples/quickstart.ipynb").read_text(encoding="utf-8"))
        cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
        self.assertGreater(len(cells), 5)
        space = {"__name__": "__main__"}
        for number, source in enumerate(cells):
            with self.subTest(cell=number), contextlib.redirect_stderr(io.StringIO()):
                exec(compile(source, f"quickstart.ipynb, cell {number}", "exec"), space)
        self.assertTrue(os.path.exists(self.examples / "quickstart-onnx/model.onnx"))
        self.assertLess(space["difference"], 1e-5)


if __name__ == "__main__":
    unittest.main()
