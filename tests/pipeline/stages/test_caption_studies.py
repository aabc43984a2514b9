"""The studies of captions, tiny: every step of a variant, what is measured, what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.config import Config, parse
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import study, variant
from pagoda.pipeline.stages.study_spec import load_study, variant_config
from pagoda.results.studies import read_study, study_folder
from pagoda.rows import Row
from tests.pipeline.stages.prepared import prepare
from tests.tiny import copy_studies, smoke_tree

pytest.importorskip("open_clip")

TINY: dict[str, Any] = {
    "studies.usual.seeds": [0], "studies.usual.fraction": 1.0, "studies.samples": 64,
    "text.optim.images": 64, "text.optim.batch": 32, "text.width": 16, "text.layers": 1,
    "text.scorer_width": 32, "text.embed": 8, "target_res": 16,
    "teacher.optim.images": 64, "distill.optim.images": 32,
}  # fmt: skip


def run(config: Config, name: str, *members: str) -> tuple[Row, ...]:
    """Some variants of a study and its collection."""
    copy_studies(Path())
    prepare(config)
    found = load_study(name)
    found = dataclasses.replace(found, variants={m: found.variants[m] for m in members})
    for member in found.variants.values():
        variant.run(config, found, member, 0)
    study.run(config, found)
    return read_study(study_folder(config.name, name)).rows


def scores(rows: tuple[Row, ...], metric: str = "clip_score") -> Mapping[tuple[str, str], float]:
    return {(r.variant, r.generator): r.number for r in rows
            if r.metric == metric and r.resolution == 8}  # fmt: skip


def made(study_name: str, member: str, key: str, kind: str) -> Artifact:
    folder = Path("experiments/runs/tiny") / study_name / member / "s0"
    return artifacts.open_artifact(folder / key, kind)


@pytest.mark.slow
def test_similarity_in_the_loss_changes_the_student_alone(
    tiny_config: Callable[..., Config],
) -> None:
    name = "clip_regulariser"
    rows = run(tiny_config(**TINY), name, "captions", "without", "without-2", "with", "with-2")
    found = scores(rows)
    student = {member for member, generator in found if generator == "student"}
    assert student == {"without", "without-2", "with", "with-2"}
    assert found["without", "teacher"] != found["without-2", "teacher"]
    assert found["with", "teacher"] == found["without", "teacher"]  # one teacher
    assert all(found[m, "student"] != found[o, "student"]
               for m, o in (("with", "without"), ("with-2", "with")))  # fmt: skip
    assert {r.protocol for r in rows if r.metric == "clip_score"} == {"clip_score_64"}
    assert scores(rows, "fd").keys() >= {(m, "student") for m in student}
    kept = made(name, "with", "gen/8", "generator"), made(name, "without", "gen/8", "generator")
    assert [artifact.card().get("clip_loss") for artifact in kept] == [
        {"weight": 0.05, "kind": "angle"}, None,
    ]  # fmt: skip
    with pytest.raises(PagodaError, match="with/s0/teacher is missing"):
        made(name, "with", "teacher", "teacher")


@pytest.mark.slow
def test_samples_of_all_captions_are_asked_for_short_ones_and_scored_alike(
    tiny_config: Callable[..., Config],
) -> None:
    name = "recaption"
    members = "captions", "short", "mixed_captions", "mixed"
    found = scores(run(tiny_config(**TINY), name, *members))
    assert {m for m, generator in found if generator == "student"} == {"short", "mixed"}
    short, mixed = (made(name, m, "captioned/8", "captioned")
                    for m in ("captions", "mixed_captions"))  # fmt: skip
    texts, rows = (zip(*((a.card()["classes"], a.weights("captions.safetensors")["held_out"])
                         for a in (short, mixed)), strict=True))  # fmt: skip
    asked = [[own[i] for i in held] for own, held in zip(texts, rows, strict=True)]
    assert asked[0] == asked[1] and len(asked[0]) == 100
    told = [[own[i] for i in a.array("train_labels")]
            for own, a in zip(texts, (short, mixed), strict=True)]  # fmt: skip
    assert sum(" background" in text for text in told[0]) == 0
    assert [" background" in text for text in told[1][:40]] == ([False] * 10 + [True] * 10) * 2
    prints = [a.card()["captions"]["scorer"]["fingerprint"] for a in (short, mixed)]
    assert prints[0] == prints[1] == made(name, "captions", "scorer", "clip").fingerprint
    readers = [a.card()["captions"]["fingerprint"] for a in (short, mixed)]
    assert readers[0] != readers[1]


@pytest.mark.parametrize("name", ["clip_regulariser", "recaption"])
def test_other_images_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pagoda.pipeline.stages.code import ROOT

    monkeypatch.chdir(ROOT)
    config = parse(smoke_tree(**{"data.source": "folder", "data.path": "set"}))
    found = load_study(name)
    for member in found.variants.values():
        with pytest.raises(PagodaError, match=r"must be embedded while text\.captions is") as error:
            variant_config(config, found, member, 0)
        assert "\n" not in str(error.value)
