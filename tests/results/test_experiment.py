"""Reading an experiment back: all of it, and one line when something is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pagoda.config import Config, parse
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.pipeline.derive import profile_tree
from pagoda.results.experiment import (
    parameters_hash,
    read_experiment,
    read_history,
    stage_names,
    stage_section,
)
from pagoda.rows import Row
from tests.results.synthetic import (
    CLASSES,
    make_config,
    result_rows,
    write_evaluation,
    write_experiment,
    write_history,
)
from tests.tiny import ROOT


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(tmp_path)
    config = make_config()
    write_experiment(config, columns=2)
    return config


def test_everything_is_read(config: Config) -> None:
    experiment = read_experiment(config)
    assert experiment.classes == tuple(CLASSES)
    assert list(experiment.evaluations) == [8, 16, 32]
    assert [e.main for e in experiment.evaluations.values()] == ["student", "grown", "grown"]
    written = [row for res in (8, 16, 32) for row in result_rows(config, res)]
    assert list(experiment.rows) == [Row(**row) for row in written]
    assert list(experiment.histories) == [
        "features", "teacher", "invert", "distill", "grow-16", "grow-32",
    ]  # fmt: skip


def test_no_growth_at_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config(base_res=32)
    write_experiment(config, columns=2)
    experiment = read_experiment(config)
    assert list(experiment.evaluations) == [32]
    assert list(experiment.histories) == ["features", "teacher", "invert", "distill"]


def test_identity_follows_parameters_and_results(config: Config) -> None:
    identity = read_experiment(config).identity
    assert read_experiment(config).identity == identity
    other = make_config(seed=1)
    assert parameters_hash(other) != parameters_hash(config)
    assert read_experiment(other).identity != identity
    rows = result_rows(config, 16)
    rows[0]["value"] += 1e-9
    write_evaluation(config, 16, rows, columns=2)
    assert read_experiment(config).identity != identity


def _change_row(config: Config) -> None:
    rows = result_rows(config, 16)
    del rows[3]["protocol"]
    write_evaluation(config, 16, rows, columns=2)


def _other_grids(config: Config) -> None:
    path = Paths(config).evaluation(8)
    shutil.rmtree(path)
    shutil.copytree(Paths(config).evaluation(16), path)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["config"]["resolution"] = 8
    (path / "manifest.json").write_text(json.dumps(manifest))


BREAKAGES: dict[str, tuple[Callable[[Config], object], str]] = {
    "evaluation": (lambda c: shutil.rmtree(Paths(c).evaluation(16)), "evaluate/16 is missing"),
    "history": (lambda c: Paths(c).history("invert").unlink(), "invert.jsonl is missing"),
    "latents": (lambda c: shutil.rmtree(Paths(c).latents), "latents is missing"),
    "card": (
        lambda c: (Paths(c).data(32) / "card.json").write_text("{"),
        "data/32/card.json is damaged .*'dvc repro'",
    ),
    "kind": (
        lambda c: (Paths(c).data(32) / "manifest.json").write_text(
            (Paths(c).latents / "manifest.json").read_text()
        ),
        "data/32 is an artifact of kind latents, not images",
    ),
    "row": (_change_row, r"results\.json, row 4 lacks protocol; run 'dvc repro"),
    "sheets": (_other_grids, "do not fit samples of shape .* at 8"),
}


@pytest.mark.parametrize("case", BREAKAGES)
def test_what_is_wrong_is_one_line(config: Config, case: str) -> None:
    breakage, said = BREAKAGES[case]
    breakage(config)
    with pytest.raises(PagodaError, match=said) as caught:
        read_experiment(config)
    assert "\n" not in str(caught.value)


ROWS = [
    {"images": 10, "step": 1, "seconds": 0.5, "loss": 2.0, "lr": 0.1},
    {"images": 20, "step": 2, "seconds": 1.0, "loss": 1.0, "lr": 0.1, "loss_adv": 3.0},
    {"images": 40, "step": 4, "seconds": 2.0, "loss": 0.5, "loss_adv": 2.0, "final": True},
]  # fmt: skip


def test_curves_keep_the_rows_that_carry_them(tmp_path: Path) -> None:
    write_history(tmp_path / "h.jsonl", ROWS)
    history = read_history(tmp_path / "h.jsonl", "distill")
    assert history.names() == ["loss", "lr", "loss_adv"]
    images, values = history.curve("loss_adv")
    assert (images == [20, 40]).all()
    assert (values == [3, 2]).all()
    assert (history.images, history.steps, history.seconds) == (40, 4, 2.0)


def test_an_unfinished_last_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    write_history(path, ROWS)
    whole = path.read_text()
    for cut in range(len(whole.splitlines()[0]) + 2, len(whole)):
        path.write_text(whole[:cut])
        complete = whole[:cut].count("\n")
        assert read_history(path, "distill", running=True).rows == tuple(ROWS[:complete])


def test_a_missing_file_is_empty_only_while_running(tmp_path: Path) -> None:
    assert read_history(tmp_path / "h.jsonl", "teacher", running=True).rows == ()
    with pytest.raises(PagodaError, match=r"h\.jsonl is missing; 'dvc repro'"):
        read_history(tmp_path / "h.jsonl", "teacher")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{not json", "line 2 is not a JSON object"),
        ("3", "line 2 is not a JSON object"),
        ('{"images": 3, "step": 1}', "line 2 lacks images, step or seconds"),
        ('{"images": 3, "step": 1, "seconds": 1.0, "loss": NaN}', "line 2: loss is not finite"),
        ('{"images": 3, "step": 1, "seconds": 1e999}', "line 2: seconds is not finite"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "h.jsonl"
    write_history(path, ROWS[:1])
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(PagodaError, match=said) as caught:
        read_history(path, "teacher")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("profile", "own"),
    [
        ("smoke", {}),
        ("latent", {"encode-16": "autoencoder", "encode-32": "autoencoder"}),
        ("text", {"clip": "text", "scorer": "text", "caption-8": "text", "caption-32": "text"}),
    ],
)
def test_every_stage_has_a_section(profile: str, own: dict[str, str]) -> None:
    config = parse(profile_tree(profile, ROOT))
    sections = {stage: stage_section(config, stage) for stage in stage_names(config)}
    assert sections["grow-32"] is config.grow and sections["teacher"] is config.teacher
    assert {stage: sections[stage] for stage in own} == {
        stage: getattr(config, section) for stage, section in own.items()
    }
