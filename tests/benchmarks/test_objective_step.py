"""Steps beside FastGen's: ours run by themselves, and a folder that is none is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fastgen_peer import FastGen
from benchmarks.objective_step import jobs


def test_every_objective_takes_a_step_of_its_own() -> None:
    made = jobs(8, 4, None)
    assert len(made) == 3
    for implementations in made.values():
        (step,) = implementations.values()
        first, second = float(step()), float(step())  # type: ignore[arg-type]
        assert first != second  # weights moved, or other images


def test_a_folder_without_fastgen_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"is no checkout of github\.com/NVlabs/FastGen$"):
        FastGen(tmp_path)
