"""``experiments/<study>/``: what ``dvc.yaml`` declares against what ``study.yaml`` says."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pagoda.config import VariantConfig, Config, parse
from pagoda.errors import PagodaError
from pagoda.paper.claims import read_claims
from pagoda.stages.code import ROOT, closure
from pagoda.stages.study_spec import (
    STEPS,
    Arm,
    Study,
    arm_config,
    find_arm,
    load_study,
    locate,
)
from tests.tiny import smoke_tree

NAMES = sorted(file.parent.name for file in ROOT.glob("experiments/*/study.yaml"))


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(smoke_tree())


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Any]]]:
    """By study, its stages as DVC resolves them beside the main pipeline."""
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("studies")
    (folder / "params.yaml").write_text(yaml.safe_dump(smoke_tree()))
    shutil.copy(ROOT / "dvc.yaml", folder)
    for name in NAMES:
        (folder / "experiments" / name).mkdir(parents=True)
        for file in ("dvc.yaml", "study.yaml"):
            shutil.copy(ROOT / "experiments" / name / file, folder / "experiments" / name)
    with Repo.init(str(folder), no_scm=True) as repo:
        repo.index.check_graph()
        found: dict[str, list[Any]] = {name: [] for name in NAMES}
        for stage in repo.index.stages:
            parent = Path(stage.path_in_repo).parent.name
            if parent in found:
                found[parent].append(stage)
        yield found


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def _runs(study: Study, config: Config) -> Iterator[tuple[Arm, int, VariantConfig]]:
    for arm in study.arms.values():
        for seed in study.seeds(config, arm):
            yield arm, seed, arm_config(config, study, arm, seed)


def _paths(entries: Any) -> list[str]:
    return [str(Path(entry.def_path)) for entry in entries]


def test_all_studies_are_there() -> None:
    wanted = {"robustness", "base_resolution", "growth_loss", "growth_baselines", "pairs",
              "loss_ratio", "inversion", "cost"}  # fmt: skip
    assert set(NAMES) == wanted


@pytest.mark.parametrize("name", NAMES)
def test_the_matrix_holds_every_arm_and_seed(
    name: str, config: Config, stages: dict[str, list[Any]]
) -> None:
    wanted = {
        f"python -m pagoda arm {name} {arm.name} --seed {seed}"
        for arm, seed, _ in _runs(load_study(name), config)
    }
    wanted.add(f"python -m pagoda study {name}")
    assert {stage.cmd for stage in stages[name]} == wanted


@pytest.mark.parametrize("name", NAMES)
def test_every_run_declares_what_it_reads_and_makes(
    name: str, config: Config, stages: dict[str, list[Any]]
) -> None:
    study, by_cmd = load_study(name), {stage.cmd: stage for stage in stages[name]}
    for arm, seed, made in _runs(study, config):
        stage = by_cmd[f"python -m pagoda arm {name} {arm.name} --seed {seed}"]
        deps, outs = _paths(stage.deps), _paths(stage.outs)
        assert outs == [str(study.folder(config, arm, seed))]
        own = {key for step in arm.steps for key in STEPS[step].makes(made)}
        read = {key for step in arm.steps for key in STEPS[step].reads(made)} - own
        for key in sorted(read | {"features"}):
            path = locate(made, key)
            assert any(path.is_relative_to(dep) for dep in deps), f"{arm.name}: {key} at {path}"


@pytest.mark.parametrize("name", NAMES)
def test_every_section_that_a_step_reads_is_a_parameter(
    name: str, config: Config, stages: dict[str, list[Any]]
) -> None:
    study, by_cmd = load_study(name), {stage.cmd: stage for stage in stages[name]}
    for arm, seed, _ in _runs(study, config):
        stage = by_cmd[f"python -m pagoda arm {name} {arm.name} --seed {seed}"]
        watched = {k for dep in stage.deps if hasattr(dep, "params") for k in dep.params}
        steps = (*arm.steps, *arm.counts)
        needed = {section for step in steps for section in STEPS[step].sections}
        needed |= {f"arms.{arm.name}", f"studies.{study.size}.fraction", "studies.samples", "evaluate"}
        assert needed <= watched, f"{arm.name} would not rerun for {sorted(needed - watched)}"


@pytest.mark.parametrize("name", NAMES)
def test_code_dependencies_cover_the_imports(name: str, stages: dict[str, list[Any]]) -> None:
    for stage in stages[name]:
        module = "pagoda.stages." + stage.cmd.split()[3]
        deps = [Path(d) for d in _paths(stage.deps) if d.startswith("pagoda")]
        missed = [f for f in closure(module) if not any(Path(f).is_relative_to(d) for d in deps)]
        assert not missed, f"{stage.addressing}: a change of {missed} would not rerun it"


def test_the_code_of_reports_never_trains_an_arm_again() -> None:
    later = ("pagoda/report", "pagoda/tracking", "pagoda/paper")
    assert not [f for f in closure("pagoda.stages.arm") if f.startswith(later)]


@pytest.mark.parametrize("name", NAMES)
def test_every_study_has_its_half_page(name: str) -> None:
    text = (ROOT / "experiments" / name / "README.md").read_text()
    for part in ("**Question.**", "**Rule.**", "| Arm |", "**Cost.**", "dvc repro", "dvc exp run"):
        assert part in text
    assert all(f"`{arm}`" in text for arm in load_study(name).arms)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_and_the_card_state_the_rules_that_judge(name: str) -> None:
    """As many claims as claims.yaml has for the study, and every limit of theirs."""
    rule = " ".join(load_study(name).rule.split())
    page = (ROOT / "experiments" / name / "README.md").read_text()
    assert f"**Rule.** {rule} " in page
    claims = [claim for claim in read_claims() if claim.study == name]
    assert rule.split()[0] == {2: "Two", 3: "Three", 4: "Four"}[len(claims)]
    named = {float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", rule)}
    assert {claim.limit for claim in claims} <= named


def test_an_arm_reads_its_parents_artifacts_and_the_profiles_for_the_rest(config: Config) -> None:
    study = load_study("robustness")
    student = arm_config(config, study, study.arms["rec-half"], 2)
    teacher = study.folder(config, study.arms["teacher-half"], config.studies.usual.seeds[0])
    assert locate(student, "teacher") == teacher / "teacher"
    assert locate(student, "gen/8") == study.folder(config, study.arms["rec-half"], 2) / "gen/8"
    whole = arm_config(config, study, study.arms["rec-full"], 2)
    assert locate(whole, "teacher") == locate(config, "teacher")
    assert locate(whole, "data/8") == locate(config, "data/8")


def test_an_arm_sees_its_share_of_the_images(config: Config) -> None:
    study = load_study("robustness")
    half = arm_config(config, study, study.arms["teacher-half"], 0)
    assert half.teacher.optim.images == pytest.approx(config.teacher.optim.images / 2, abs=64)
    share = config.studies.usual.fraction
    student = arm_config(config, study, study.arms["rec-half"], 0).distill.optim
    assert student.images == pytest.approx(config.distill.optim.images * share, abs=student.batch)
    assert student.images % student.batch == 0


def test_trouble_is_one_line(config: Config) -> None:
    study = load_study("pairs")
    with pytest.raises(PagodaError, match="no study nonsense"):
        load_study("nonsense")
    with pytest.raises(PagodaError, match="has no arm nonsense"):
        find_arm(study, "nonsense")
    wrong = dataclasses.replace(study.arms["share-1"], set={"distill.nonsense": 1})
    with pytest.raises(PagodaError, match="which is no key of params"):
        arm_config(config, study, wrong, 0)
    bad = dataclasses.replace(study.arms["share-1"], set={"distill.pair_share": 2.0})
    with pytest.raises(PagodaError, match="pair_share"):
        arm_config(config, study, bad, 0)
