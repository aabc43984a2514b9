"""Studies: what their DVC stages declare, what ``study.yaml`` may say, where artifacts live."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from pagoda.config import Config, VariantConfig, parse
from pagoda.errors import PagodaError
from pagoda.pipeline.dvc_stages import study_text
from pagoda.pipeline.stages.code import ROOT, closure
from pagoda.pipeline.stages.made import locate
from pagoda.pipeline.stages.study_spec import (
    STEPS,
    Study,
    Variant,
    artifacts_of,
    load_study,
    variant_config,
)
from pagoda.results.claims import Claim, read_claims
from tests.tiny import smoke_tree

NAMES = sorted(file.parent.name for file in ROOT.glob("experiments/*/study.yaml"))


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(smoke_tree())


@contextlib.contextmanager
def resolved(folder: Path, tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Stages of all studies by command, as DVC resolves them in their own project."""
    from dvc.repo import Repo

    (folder / "params.yaml").write_text(yaml.safe_dump(tree))
    for name in NAMES:
        (folder / "experiments" / name).mkdir(parents=True)
        for file in ("dvc.yaml", "study.yaml"):
            shutil.copy(ROOT / "experiments" / name / file, folder / "experiments" / name)
    (folder / "experiments/params.yaml").symlink_to("../params.yaml")
    (folder / "experiments/pagoda").symlink_to(ROOT / "pagoda")
    with Repo.init(str(folder / "experiments"), no_scm=True) as repo:
        repo.index.check_graph()
        yield {stage.cmd.removeprefix("cd ../.. && python -m pagoda "): stage
               for stage in repo.index.stages}  # fmt: skip


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with resolved(tmp_path_factory.mktemp("studies"), smoke_tree()) as found:
        yield found


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def _runs(name: str, config: Config) -> Iterator[tuple[Study, Variant, int, VariantConfig]]:
    study = load_study(name)
    for variant in study.variants.values():
        for seed in study.seeds(config, variant):
            yield study, variant, seed, variant_config(config, study, variant, seed)


def _paths(entries: Any) -> list[Path]:
    """Relative to the project's root."""
    names = (str(entry.def_path).removeprefix("../") for entry in entries)
    return [Path(name[3:] if name.startswith("../") else f"experiments/{name}") for name in names]


def test_the_studies_of_the_paper_are_there() -> None:
    wanted = {"robustness", "base_resolution", "growth_loss", "growth_baselines", "pairs",
              "loss_ratio", "inversion", "cost"}  # fmt: skip
    assert wanted <= set(NAMES)


def test_every_variant_and_seed_is_a_stage(config: Config, stages: dict[str, Any]) -> None:
    runs = [run for name in NAMES for run in _runs(name, config)]
    wanted = {f"variant {s.name} {v.name} --seed {seed}" for s, v, seed, _ in runs}
    assert set(stages) == wanted | {f"study {name}" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_the_stages_are_those_of_the_study(name: str) -> None:
    text = (ROOT / "experiments" / name / "dvc.yaml").read_text()
    assert text == study_text(load_study(name)), "run 'pagoda derive --stages'"


@pytest.mark.longer
@pytest.mark.parametrize("name", NAMES)
def test_a_run_declares_what_it_reads_makes_and_depends_on(
    name: str, config: Config, stages: dict[str, Any]
) -> None:
    for study, variant, seed, made in _runs(name, config):
        stage = stages[f"variant {name} {variant.name} --seed {seed}"]
        deps, outs = _paths(stage.deps), _paths(stage.outs)
        assert outs == [study.folder(config, variant, seed)]
        own: set[str] = set()
        each = "grow_each" in variant.steps  # which reads the main pipeline's generators
        read = {"features"}
        for step in variant.steps:
            kinds = [k for k in STEPS[step].reads if k not in own]
            read |= {key for kind in kinds for key in artifacts_of(made, kind)}
            own |= set(STEPS[step].makes)
        for key in sorted(read):
            path = locate(config if key[:3] == "gen" and each else made, key)
            assert any(path.is_relative_to(d) for d in deps), f"{variant.name}: {key} at {path}"
        watched = {k for dep in stage.deps if hasattr(dep, "params") for k in dep.params}
        needed = {s for step in (*variant.steps, *variant.counts) for s in STEPS[step].sections}
        needed |= {f"variants.{variant.name}", f"studies.{study.size}.fraction",
                   "studies.samples", "evaluate", "data"}  # fmt: skip
        assert needed <= watched, f"{variant.name} would not rerun for {needed - watched}"
        code = [
            d.relative_to("experiments") for d in deps if d.parts[:2] == ("experiments", "pagoda")
        ]
        files = closure(f"pagoda.pipeline.stages.{variant.stage}")
        assert not [f for f in files if not any(Path(f).is_relative_to(d) for d in code)]


@pytest.mark.longer
def test_a_run_depends_on_the_method_that_the_parameters_choose(
    config: Config, tmp_path: Path
) -> None:
    """A file of one's own, where the study says nothing of methods, and no method besides."""
    code = {"distill": "mine.py", "grow": "other.py"}
    with resolved(tmp_path, smoke_tree() | {"code": code}) as stages:
        for study, variant, seed, _ in (run for name in NAMES for run in _runs(name, config)):
            deps = _paths(stages[f"variant {study.name} {variant.name} --seed {seed}"].deps)
            read = [variant, *(study.variants[v] for v in [variant.compute_of] if v)]
            trained = {"distill": {"distill"}, "grow": {"grow", "grow_each"}}
            for section, kinds in trained.items():
                chosen = any(
                    kinds & {*v.steps, *v.counts} and section not in v.methods for v in read
                )
                assert (Path(code[section]) in deps) == chosen, variant.name
            here = Path("experiments/pagoda/methods")
            own = {here / f"{method}.py" for v in read for method in v.methods.values()}
            others = {here / "drifting.py", here / "mean_flow.py", here / "relativistic.py"} - own
            assert own <= set(deps) and here not in deps, variant.name
            assert not others & set(deps), variant.name


@pytest.mark.parametrize("name", NAMES)
def test_every_study_has_its_half_page(name: str) -> None:
    text = (ROOT / "experiments" / name / "README.md").read_text()
    for part in ("**Question.**", "**Rule.**", "| Variant |", "**Cost.**",
                 f"repro -k {name}/dvc.yaml", f"exp run {name}/dvc.yaml"):  # fmt: skip
        assert part in text
    study = load_study(name)
    assert all(f"`{variant}`" in text for variant in study.variants)
    # What its command line changes is what the study takes.
    assert set(re.findall(r"studies\.(usual|costly|whole)", text)) == {study.size}


@cache
def _claims() -> list[Claim]:
    return read_claims()


@pytest.mark.parametrize("name", NAMES)
def test_the_page_and_the_card_state_the_rules_that_decide(name: str) -> None:
    """As many claims as the study has, and every limit of theirs."""
    rule = " ".join(load_study(name).rule.split())
    page = (ROOT / "experiments" / name / "README.md").read_text()
    assert f"**Rule.** {rule} " in page
    claims = [claim for claim in _claims() if claim.study == name]
    words = "No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten"
    assert rule.split()[0] == words[len(claims)]
    named = {float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", rule)}
    assert {claim.limit for claim in claims} <= named


def test_a_variant_reads_its_parents_artifacts_and_the_profiles_for_the_rest(
    config: Config,
) -> None:
    study = load_study("robustness")
    half, full = study.variants["rec-half"], study.variants["rec-full"]
    student = variant_config(config, study, half, 2)
    teacher = study.folder(config, study.variants["teacher-half"], 2)
    assert locate(student, "teacher") == teacher / "teacher"
    assert locate(student, "gen/8") == study.folder(config, half, 2) / "gen/8"
    whole = variant_config(config, study, full, 2)
    assert locate(whole, "teacher") == locate(config, "teacher")
    assert locate(whole, "data/8") == locate(config, "data/8")


def test_a_parent_that_is_made_once_is_read_by_every_seed(config: Config) -> None:
    study = load_study("teacher_steps")
    coarse, first = study.variants["teacher-3"], config.studies.usual.seeds[0]
    assert coarse.once and first != 2
    student = variant_config(config, study, study.variants["rec-3"], 2)
    assert locate(student, "latents") == study.folder(config, coarse, first) / "latents"


def test_a_variant_sees_its_fraction_of_the_images(config: Config) -> None:
    study = load_study("robustness")
    half = variant_config(config, study, study.variants["teacher-half"], 0)
    assert half.teacher.optim.images == pytest.approx(config.teacher.optim.images / 2, abs=64)
    size = config.studies.usual
    student = variant_config(config, study, study.variants["rec-half"], 0).distill.optim
    wanted = config.distill.optim.images * size.fraction * size.scale
    assert student.images == pytest.approx(wanted, abs=student.batch)
    assert student.images % student.batch == 0


def test_a_variant_inverts_its_fraction_of_the_images(config: Config) -> None:
    study = load_study("base_resolution")
    base = study.variants["base"]

    def inverted(variant: Variant, fraction: float, images: int | None = 1536) -> int | None:
        size = dataclasses.replace(config.studies.costly, fraction=fraction)
        chosen = dataclasses.replace(
            config,
            studies=dataclasses.replace(config.studies, costly=size),
            invert=dataclasses.replace(config.invert, images=images),
        )
        return variant_config(chosen, study, variant, 0).invert.images

    assert inverted(base, 0.5) == 768
    assert inverted(base, 0.5, None) == (config.data.train_images or 0) // 2 > 0
    assert inverted(dataclasses.replace(base, images={"invert": 0.25}), 0.5) == 384
    assert inverted(dataclasses.replace(base, set={"invert.images": 99}), 0.5) == 99
    reads = dataclasses.replace(base, steps=("distill",))  # what another one inverted
    assert inverted(reads, 0.5) == 1536


def test_every_seed_is_measured_on_latents_of_its_own(config: Config) -> None:
    """The same for all variants; those of the first seed are the main pipeline's."""
    study = load_study("pairs")
    seeds = [
        {variant_config(config, study, v, seed).evaluate.seed for v in study.variants.values()}
        for seed in (0, 1, 4)
    ]
    assert seeds == [{config.evaluate.seed + seed} for seed in (0, 1, 4)]


def test_a_scale_shortens_all_but_the_teacher(config: Config) -> None:
    study = load_study("latent_space")

    def images(scale: float) -> list[int]:
        size = dataclasses.replace(config.studies.whole, scale=scale)
        studies = dataclasses.replace(config.studies, whole=size)
        chosen = dataclasses.replace(config, studies=studies)
        made = variant_config(chosen, study, study.variants["pixels_equal_time"], 0)
        return [getattr(made, part).optim.images for part in ("teacher", "distill", "grow")]

    (teacher, *long), (same, *short) = images(1.0), images(0.25)
    assert same == teacher
    assert [n / 4 for n in long] == pytest.approx(short, abs=config.distill.optim.batch)


def test_trouble_is_one_line(config: Config) -> None:
    study = load_study("pairs")
    with pytest.raises(PagodaError, match="no study nonsense"):
        load_study("nonsense")
    with pytest.raises(PagodaError, match="has no variant nonsense"):
        study.variant("nonsense")
    one = study.variants["share-1"]
    for keys, words in (({"distill.nonsense": 1}, "which is no key of params"),
                        ({"seed.nonsense": 1}, "which is no key of params"),
                        ({"distill.pair_share": 2.0}, "pair_share")):  # fmt: skip
        with pytest.raises(PagodaError, match=words):
            variant_config(config, study, dataclasses.replace(one, set=keys), 0)


def test_a_variant_is_stale_when_what_its_compute_is_counted_from_changes() -> None:
    """The pipeline on codes trains an autoencoder; that in pixels of equal compute has none."""
    stages = yaml.safe_load(study_text(load_study("latent_space")))["stages"]
    for name, variants, counted in (
        ("pixels_equal_compute", ["variants.pixels_equal_compute", "variants.codes"], True),
        ("pixels_equal_time", ["variants.pixels_equal_time"], False),
    ):
        profile, study = stages[name]["params"]
        assert study["study.yaml"] == ["size", *variants]
        assert ("autoencoder" in profile["../params.yaml"]) is counted


def test_a_variant_of_another_base_cannot_read_the_main_pipeline() -> None:
    study = load_study("pairs")
    doubled = dataclasses.replace(study.variants["store"], doublings=1)
    with pytest.raises(PagodaError, match="store doubles the base resolution and reads"):
        study_text(dataclasses.replace(study, variants={"store": doubled}))


GOOD: dict[str, Any] = {
    "title": "a", "question": "b", "rule": "c", "size": "usual",
    "variants": {"x": {"label": "X", "steps": ["distill"]}, "y": {"label": "Y", "of": "x"}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        ("", [1], "the file = [1]; it must be a mapping of keys"),
        ("size", "huge", "size = 'huge'; it must be one of usual, costly, whole"),
        ("tilte", "a", "unknown key tilte"),
        ("axis_log", "yes", "axis_log = 'yes'; it must be true or false"),
        ("metrics", "fd", "metrics = 'fd'; it must be a list"),
        ("claims", {}, "claims = {}; it must be a list"),
        ("variants", [], "variants = []; it must be a mapping"),
        ("variants", {"../up": {"label": "x"}}, "variants = '../up'; it must be of keys"),
        ("variants.x", None, "variants.x = None; it must be a mapping of keys"),
        ("variants.x.step", ["grow"], "unknown key variants.x.step"),
        ("variants.x.name", "z", "unknown key variants.x.name"),
        ("variants.x.steps", "distill", "variants.x.steps = 'distill'; it must be a list"),
        (
            "variants.x.steps",
            ["fly"],
            "variants.x.steps[0] = 'fly'; it must be one of autoenc",
        ),
        ("variants.x.counts", [1], "variants.x.counts[0] = 1; it must be text"),
        ("variants.x.of", "z", "variants.x.of = 'z'; it must be another variant"),
        ("variants.x.of", "y", "variants.x.of = 'y'; it must be another variant"),
        ("variants.x.compute_of", "z", "variants.x.compute_of = 'z'; it must be another variant"),
        ("variants.x.compute_of", "x", "variants.x.compute_of = 'x'; it must be another variant"),
        ("variants.y.compute_of", "x", "variants.y.compute_of = 'x'; it must be of a variant that"),
        ("variants.x.doublings", -1, "variants.x.doublings = -1; it must be >= 0"),
        ("variants.x.doublings", "one", "variants.x.doublings = 'one'; it must be a whole"),
        ("variants.x.axis", "left", "variants.x.axis = 'left'; it must be a number"),
        ("variants.x.set", ["a"], "variants.x.set = ['a']; it must be a mapping"),
        ("variants.x.images", {"grow": "all"}, "variants.x.images.grow = 'all'; it must be a"),
        ("variants.x.images", {"evaluate": 1}, "variants.x.images = 'evaluate'; it must be one of"),
    ],
)
def test_what_a_study_may_not_say_is_one_line(
    where: str, value: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = copy.deepcopy(GOOD)
    *path, last = where.split(".")
    node = tree
    for key in path:
        node = node[key]
    node[last] = value
    file = Path("experiments/mine/study.yaml")
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(tree if where else value), encoding="utf-8")
    with pytest.raises(PagodaError) as caught:
        load_study("mine")
    assert f"experiments/mine/study.yaml: {words}" in str(caught.value)
    assert "\n" not in str(caught.value)
