"""What an interrupted stage's state is named after; what is said when it cannot be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pagoda.artifacts import Artifact
from pagoda.pipeline.stages.code import ROOT, version, versions
from pagoda.pipeline.stages.scratch import stage_scratch

SOURCE = (
    '"""A loss."""\n\n\ndef loss(x: float) -> float:\n    """The square."""\n    return x * x\n'
)


@dataclass(frozen=True)
class Section:
    lr: float = 0.01
    widths: tuple[int, ...] = (1, 2)


def begin(stage: str = "teacher", section: Section | None = None, **changes: Any) -> Path:
    """The scratch folder of a stage that leaves a checkpoint there."""
    data = Artifact(Path("data"), {"fingerprint": changes.pop("data", "a")})
    facts = {"seed": 0} | changes
    folder = stage_scratch(stage, {"teacher": section or Section()}, {"data": data}, **facts)
    (folder / "000000003.safetensors").touch()
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_file_that_a_section_names_is_an_input(capsys: pytest.CaptureFixture[str]) -> None:
    """A table of classes, say: only its name is a parameter."""
    Path("table.npy").write_bytes(b"one")
    first = begin(table="table.npy")
    assert begin(table="table.npy") == first and capsys.readouterr().err == ""
    Path("table.npy").write_bytes(b"two")
    assert begin(table="table.npy") != first
    assert "its input table.npy changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        (SOURCE.replace("A loss.", "The only loss."), True),
        (SOURCE.replace('    """The square."""\n', "    # as in the paper\n"), True),
        (SOURCE.replace("x * x", "(x\n            * x)"), True),
        (SOURCE.replace("x * x", "x * x * x"), False),
        (SOURCE.replace("x * x", 'f("x")'), False),
    ],
)
def test_comments_docstrings_and_layout_are_no_other_code(changed: str, same: bool) -> None:
    assert changed != SOURCE and (version(changed) == version(SOURCE)) == same


@pytest.mark.parametrize("stage", ["features", "teacher", "invert", "distill", "grow"])
def test_a_stage_depends_on_its_own_code_only(stage: str) -> None:
    """No edit of reports, tables, tracking or commands orphans a checkpoint."""
    code = versions(f"pagoda.pipeline.stages.{stage}")
    assert f"pagoda/pipeline/stages/{stage}.py" in code and "pagoda/training/checkpoint.py" in code
    others = ("report", "paper", "commands", "metrics", "plan", "tracking", "study_tracking", "cli")
    assert not [file for file in code if file.split("/")[1].removesuffix(".py") in others]
    assert code["pagoda/training/checkpoint.py"] == version(
        (ROOT / "pagoda/training/checkpoint.py").read_text()
    )


@pytest.mark.parametrize("stage", ["grow-16", "cascade-32"])
def test_stages_of_one_resolution_have_their_module(stage: str) -> None:
    code = json.loads((begin(stage) / "identity.json").read_text())["code"]
    module = {"grow-16": "grow", "cascade-32": "super_resolution"}[stage]
    assert f"pagoda/pipeline/stages/{module}.py" in code


def test_the_same_run_finds_its_folder_and_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert begin() == begin()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"section": Section(lr=0.02)}, "teacher.lr was 0.01 and is 0.02"),
        ({"section": Section(widths=(1, 4))}, "teacher.widths was [1, 2] and is [1, 4]"),
        ({"seed": 7}, "seed was 0 and is 7"),
        ({"data": "b"}, "its input data changed"),
        ({"data": "b", "seed": 7}, "seed was 0 and is 7; its input data changed"),
    ],
)
def test_one_line_says_what_keeps_a_checkpoint_from_use(
    changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    far, near = begin(section=Section(0.5, (9,)), seed=99, data="z"), begin()
    capsys.readouterr()
    assert begin(**changes) not in (near, far)
    assert capsys.readouterr().err == (
        f"teacher: starts from the beginning; the unfinished work in {near} cannot be used: "
        f"{said}\n"
    )


@pytest.mark.parametrize("left", ["another version", "no identity", "damaged"])
def test_changed_code_is_named(left: str, capsys: pytest.CaptureFixture[str]) -> None:
    old = begin()
    file = old.rename(old.with_name("0" * 16)) / "identity.json"
    identity = json.loads(file.read_text())
    identity["code"]["pagoda/networks/unet.py"] = "another version"
    text = {"another version": json.dumps(identity), "damaged": "[1", "no identity": "7"}[left]
    file.write_text(text)
    begin()
    said = capsys.readouterr().err
    named = left == "another version"
    why = "pagoda/networks/unet.py changed" if named else "another version of pagoda made it"
    assert said.endswith(f"{file.parent} cannot be used: {why}\n") and said.count("\n") == 1
