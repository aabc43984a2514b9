"""The notebook of the documentation runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from pagoda.config import parse
from pagoda.pipeline.stages import downsample, features, invert
from tests.pipeline.stages.untrained import write_models
from tests.tiny import ROOT, tiny_tree

NOTEBOOK = ROOT / "docs/quickstart.ipynb"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a run of the default profile's name and sizes whose networks are tiny."""
    config = parse(tiny_tree(name="smoke"))
    monkeypatch.chdir(tmp_path)
    for resolution in config.resolutions:
        downsample.run(config, resolution)
    features.run(config)
    write_models(config)
    invert.run(config)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "(36, 3, 32, 32) uint8" in printed and "fd_classifier_256" in printed


def test_the_notebook_was_run_as_it_is_shown() -> None:
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    assert not [o for c in cells for o in c.outputs if o.output_type == "error"]
