"""``docs/extending.md``: its blocks, as they stand, in a copy of the project and at tiny size."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pagoda import artifacts
from pagoda.config import Config, parse
from pagoda.config.paths import Paths
from pagoda.data import sources
from pagoda.errors import PagodaError
from pagoda.evaluation import metrics as package
from pagoda.evaluation.evaluator import Evaluator, evaluate
from pagoda.evaluation.features.base import Extractor, Features
from pagoda.evaluation.metrics import base
from pagoda.evaluation.metrics.base import Settings, metric_names
from pagoda.evaluation.reference import from_sample, reference_card
from pagoda.evaluation.streaming import StoredImages, collect
from pagoda.networks.generator import load_generator
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.stages import distill, downsample, invert, score
from pagoda.pipeline.stages.study_spec import load_study, variant_config
from pagoda.training import loop
from tests.pipeline.stages.untrained import write_models
from tests.tiny import ROOT, smoke_tree, tiny_tree

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([^`\n]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.M | re.S))
SMALL = {"data.train_images": 40, "data.test_images": 20, "invert.images": 16, "target_res": 8}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the files need, and the files of the page."""
    folder = tmp_path_factory.mktemp("project")
    away = shutil.ignore_patterns("runs", "dvc.lock", ".dvc")  # what is compiled stays valid
    for name in ("pagoda", "tests", "experiments", "hydra_plugins"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=away)
    for name in ("dvc.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(tiny_tree(**SMALL)))
    (folder / "weights/none").mkdir(parents=True)
    (folder / "weights/none/.gitkeep").touch()
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copy(folder / "ratio.py", folder / "pagoda/methods/ratio.py")
    return folder


def run(project: Path, *command: str) -> str:
    """What ``python -m COMMAND`` says in the copy, whose code it runs."""
    environment = os.environ | {"PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *command], cwd=project, env=environment, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_four_tasks_take_nine_files() -> None:
    assert [Path(name).name for name in FILES] == [
        "ratio.py", "ratio.yaml", "test_ratio.py", "spread.py", "test_spread.py", "stripes.py",
        "test_stripes.py", "study.yaml", "README.md",
    ]  # fmt: skip


@pytest.mark.longer
def test_the_tests_of_the_page_and_the_contract_pass(project: Path) -> None:
    """``ratio`` is in the copy's package too, so that the contract finds it there."""
    run(project, "pagoda", "derive", "--stages")
    own = [name for name in FILES if Path(name).name.startswith("test_")]
    general = ["tests/methods/test_contract.py", "tests/test_studies.py", "tests/test_config.py"]
    slow = "declares", "finite", "moves", "needs_no", "composes", "stopped", "micro"
    others = "class_ratio", "loss_ratio"
    ratio = f"ratio and not ({' or '.join((*slow, *others))})"
    some = f"spread or stripes or base_sets or test_ratio or {ratio}"
    said = run(project, "pytest", "-q", "-p", "no:cacheprovider", "-k", some, *own, *general)
    assert "passed" in said and "failed" not in said


def method_tree(method: str, **section: Any) -> dict[str, Any]:
    """The tiny experiment with a distillation that has nothing of one_step's."""
    whole = tiny_tree(**SMALL)
    kept = ("imported", "pair_share", "output", "teacher_steps", "dropout")
    stage = {key: whole["distill"][key] for key in kept} | {"method": method} | section
    stage["optim"] = {"images": 48, "batch": 16, "lr": 1e-3}
    file = method.rpartition(":")[0] or f"pagoda/methods/{method}.py"
    return whole | {"distill": stage, "code": whole["code"] | {"distill": file}}


def prepare(config: Config) -> None:
    """What distillation reads, in the working folder."""
    downsample.run(config, 8)
    write_models(config)
    shutil.rmtree(Paths(config).generator(8))
    invert.run(config)


def test_the_method_trains_stops_goes_on_and_writes_its_artifact(
    project: Path, tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_config()
    shutil.copy(project / "ratio.py", ".")
    config = parse(method_tree("ratio.py:Ratio", width=4))
    prepare(config)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    whole, steps = loop.run_step, []

    def stopped(*arguments: Any) -> Any:
        steps.append(arguments[2])
        if len(steps) == 3:
            raise RuntimeError("power cut")
        return whole(*arguments)

    monkeypatch.setattr(loop, "run_step", stopped)
    with pytest.raises(RuntimeError):
        distill.run(config)
    (identity,) = Path(".scratch/distill").glob("*/identity.json")
    assert "ratio.py" in json.loads(identity.read_text())["code"]
    distill.run(config)
    assert steps == [0, 1, 2, 2]
    made = artifacts.open_artifact(Paths(config).generator(8), "generator")
    assert {"loss", "loss_ratio"} <= made.card()["metrics"].keys()
    image = made.network(load_generator)(torch.randn(1, 3, 8, 8), torch.zeros(1, dtype=torch.long))
    assert image.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("two_step", "distill.method = 'two_step'; it must be one of class_ratio, consistency"),
        ("gone.py:Ratio", "distill.method = 'gone.py:...'; it must be of a file that is there"),
        ("{}:Missing", "has no method Missing, a class derived from Method"),
        ("{}:Ratio", "unknown key distill.loss"),
    ],
)
def test_a_method_that_is_none_is_one_line(method: str, said: str, project: Path) -> None:
    with pytest.raises(PagodaError) as error:
        parse(method_tree(method.format(project / "ratio.py"), loss={}))
    assert said in str(error.value) and "\n" not in str(error.value)


def compose(project: Path, *overrides: str) -> dict[str, Any]:
    """What ``dvc exp run -S OVERRIDES`` makes of the copy's parameters."""
    from dvc.utils.hydra import compose_and_dump

    file = project / "composed.yaml"
    compose_and_dump(
        file, str(project / "experiments"), None, "compose", str(ROOT), list(overrides)
    )
    return dict(yaml.safe_load(file.read_text()))


def test_the_profile_says_what_differs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of the method that it does not choose are gone; both ways of choosing it agree."""
    monkeypatch.chdir(project)
    tree = compose(project, "profile=ratio")
    assert tree == profile_tree("ratio", project)
    assert tree["code"] == {"distill": "ratio.py", "grow": "pagoda/methods/one_step.py"}
    assert "loss" not in tree["distill"] and "loss" in tree["grow"]
    assert parse(tree).distill.width == 16  # type: ignore[attr-defined]
    one = "distill.method=ratio.py:Ratio", "+distill.width=16"
    assert compose(project, *one)["distill"].keys() == tree["distill"].keys()


def test_a_method_without_its_file_under_code_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    tree = profile_tree("ratio", project)
    with pytest.raises(PagodaError, match=r"code = .* 'ratio\.py'.*run 'pagoda derive'"):
        parse(tree | {"code": {"distill": "pagoda/methods/one_step.py", "grow": "x"}})


def test_dvc_depends_on_the_methods_file(project: Path, tmp_path: Path) -> None:
    from dvc.repo import Repo

    shutil.copy(project / "dvc.yaml", tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(method_tree("ratio.py:Ratio")))
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        repo.index.check_graph()
        deps = {stage.name: {str(d.def_path) for d in stage.deps} for stage in repo.index.stages}
    assert "ratio.py" in deps["distill"] and "pagoda/training" in deps["distill"]
    assert not [d for d in deps["distill"] if d.startswith("pagoda/methods")]


@pytest.mark.slow
def test_dvc_runs_it_and_runs_it_again_when_its_file_changes(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(project, folder, symlinks=True)
    monkeypatch.chdir(folder)
    prepare(parse(yaml.safe_load(Path("params.yaml").read_text("utf-8"))))
    shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    Path(".gitignore").write_text("/runs\n/.scratch\n__pycache__\n/.dvc/*/\n", "utf-8")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        who = ["-c", "user.name=n", "-c", "user.email=e@x"]
        subprocess.run(["git", *who, *words], check=True, capture_output=True)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    chosen = "distill.method=ratio.py:Ratio", "+distill.width=4", "distill.optim.images=48"
    Path("params.yaml").write_text(yaml.safe_dump(compose(folder, *chosen)), "utf-8")
    run(folder, "dvc", "repro", "-s", "distill")
    assert artifacts.open_artifact(Path("runs/tiny/b8/gen/8"), "generator")
    assert "didn't change" in run(folder, "dvc", "repro", "-s", "distill")
    with Path("ratio.py").open("a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    assert "ratio.py" in run(folder, "dvc", "status", "distill")


@pytest.fixture
def spread(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Metric and source of the page, in folders that the packages also have."""
    for here, file in (
        (package, "evaluation/metrics/spread.py"),
        (sources, "data/sources/stripes.py"),
    ):
        folder = tmp_path / Path(file).stem
        folder.mkdir()
        shutil.copy(project / "pagoda" / file, folder)
        monkeypatch.setattr(here, "__path__", [*here.__path__, str(folder)])
    base.metrics.cache_clear()
    yield
    base.metrics.cache_clear()


@pytest.mark.usefixtures("spread")
def test_the_metric_is_measured_by_the_evaluator() -> None:
    """Asked for by its name, its row traced, its label and direction known."""

    def forward(images: np.ndarray, spatial: bool) -> Features:  # type: ignore[type-arg]
        return Features(torch.from_numpy(images).double().mean((2, 3)))

    network = Extractor("means", "custom", 3, None, None, {}, "f", forward, 8)
    rng = np.random.default_rng(0)
    real, made = (StoredImages(w, rng.integers(0, 99, (20, 3, 4, 4), np.uint8)) for w in "rm")
    (sample,) = collect(real, [(network, {"features"})])
    card = reference_card(network, images="i", recipe=None, resolution=4, split="train", n=20,
                          manifold_n=20)  # fmt: skip
    keys = metric_names("spread,fd", "means")
    evaluator = Evaluator(network, from_sample("reference", sample, card), keys)
    row, other = evaluate({"m": made}, [evaluator], Settings(), {"seed": 3})
    means = [images.read(np.arange(20)).mean((2, 3)).var(0).sum() for images in (made, real)]
    assert row.value == pytest.approx(means[0] / means[1], rel=1e-5)
    assert (row.protocol, row.generator, row.seed, row.n) == ("spread_means_20", "m", 3, 20)
    assert row.reference == card["identity"] and row.features == "f" and other.metric == "fd"
    assert base.labels()["spread"] == "Spread" and "spread" not in base.larger_is_better()


@pytest.mark.usefixtures("spread")
def test_images_of_the_source_are_scored_by_the_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``pagoda evaluate --images set.stripes --metrics spread`` does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("set.stripes").write_text("2", encoding="utf-8")
    Path("means.py").write_text("def embed(x):\n    return x.float().mean((2, 3))\n", "utf-8")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
    np.savez("real.npz", arr_0=pixels)
    network = score.Features("custom:means:embed")
    for images in ("set.stripes", "stripes:set.stripes"):
        source = score.Source(Path(images))
        score.run(score.Request(source, network, Path("real.npz"), metrics="spread",
                                out=Path("out.json")))  # fmt: skip
        (row,) = json.loads(Path("out.json").read_text(encoding="utf-8"))["rows"]
        assert row["metric"] == "spread" and row["n"] == 40
        Path("out.json").unlink()


@pytest.mark.usefixtures("spread")
def test_what_the_source_needs_is_checked() -> None:
    with pytest.raises(PagodaError, match=r"data\.path = None; it must be the path of a stripes"):
        parse(smoke_tree(**{"data.source": "stripes"}))
    with pytest.raises(PagodaError, match=r"data\.source = 'ftp'; it must be one of .* stripes, "):
        parse(smoke_tree(**{"data.source": "ftp"}))


@pytest.mark.longer
def test_the_study_is_stages_and_its_variant_a_configuration(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pagoda.pipeline.dvc_stages import study_text

    monkeypatch.chdir(project)
    study = load_study("density_ratio")
    stages = yaml.safe_load(study_text(study))["stages"]
    assert list(stages) == ["discriminator", "ratio", "collect"]
    assert "../../ratio.py" in stages["ratio"]["deps"]
    assert "../../ratio.py" not in stages["discriminator"]["deps"]
    config = parse(tiny_tree(**SMALL))
    ratio = variant_config(config, study, study.variant("ratio"), 1)
    assert ratio.distill.method == "ratio.py:Ratio"
    assert ratio.distill.width == 16  # type: ignore[attr-defined]
    assert ratio.distill.optim.lr == config.distill.optim.lr and ratio.seed == 1
    wrong = dataclasses.replace(study.variant("ratio"), set={"distill.method": "two_step"})
    with pytest.raises(PagodaError, match=r"distill\.method = 'two_step'; it must be one of"):
        variant_config(config, study, wrong, 0)
