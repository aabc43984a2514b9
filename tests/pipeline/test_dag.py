"""The picture of the pipeline: ten kinds of stages, each below what it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from pagoda.pipeline.dag import picture
from tests.tiny import ROOT

STAGES = ("downsample", "features", "reference", "teacher", "invert", "distill", "grow", "evaluate",
          "report", "track")  # fmt: skip


def test_ten_boxes_in_the_order_of_the_pipeline(tmp_path: Path) -> None:
    for file in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / file, tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    command = [sys.executable, "-m", "dvc", "dag", "--dot"]
    dot = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    drawn = picture(dot)
    assert drawn.count("|") == 2 * len(STAGES) and "@" not in drawn
    places = {name: drawn.index(f"| {name} |") for name in STAGES}
    evaluation = ("downsample", "features", "reference", "evaluate")
    training = ("teacher", "invert", "distill", "grow", "evaluate", "report", "track")
    for chain in (evaluation, training):
        above = [places[name] for name in chain]
        assert above == sorted(above)
    assert max(map(len, drawn.splitlines())) <= 80
