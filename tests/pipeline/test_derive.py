"""What writes ``params.yaml``: valid and whole, or not at all, and no value of a user's is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pagoda.config import load
from pagoda.errors import PagodaError
from pagoda.pipeline.derive import choose, profile_tree, rewrite, save
from tests.test_config import compose
from tests.tiny import ROOT, smoke_tree, tiny_tree

MINE = "# @package _global_\ndefaults:\n  - smoke\n  - _self_\nname: mine\ndiffusion: {rho: 5.0}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose ``params.yaml`` is the default profile's."""
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments", symlinks=True)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(smoke_tree()))
    return tmp_path


def profile(project: Path, text: str) -> Path:
    """Write the profile ``mine``; returns the parameters."""
    (project / "experiments/profile/mine.yaml").write_text(text)
    return project / "params.yaml"


def test_a_profile_may_build_on_another(project: Path) -> None:
    params = profile(project, MINE)
    assert choose(params, "mine", project) == [8, 16, 32]
    assert yaml.safe_load(params.read_text()) == smoke_tree(name="mine", **{"diffusion.rho": 5.0})
    composed = compose_in(project, smoke_tree(), "profile=mine")
    assert composed == yaml.safe_load(params.read_text())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# @package _global_\ndefaults: [smok]\n", "no profile smok; there are "),
        ("# @package _global_\nname: mine\n", "mine.yaml: missing key base_res"),
        (MINE.replace("rho: 5.0", "rho: -1"), "mine.yaml: diffusion.rho = -1.0; it must be > 0"),
        (MINE.replace("rho: 5.0", "rho: .inf"), "diffusion.rho = '.inf'"),
        (MINE.replace("name: mine", "name: ../up"), "name = '../up'; it must be a name"),
        (MINE + "seed: 010\n", "seed = '010'"),
        (MINE + "seed: 1\nseed: 2\n", "seed is there twice"),
        (MINE + "sede: 1\n", "unknown key sede"),
        (MINE + "seed: ${nothing}\n", "nothing"),
        (MINE + "base_res: 48\n", "base_res = 48"),
    ],
)
def test_a_profile_that_is_not_valid_changes_nothing(project: Path, text: str, words: str) -> None:
    params = profile(project, text)
    before = params.read_bytes()
    with pytest.raises(PagodaError) as caught:
        choose(params, "mine", project)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert params.read_bytes() == before
    assert {p.name for p in project.iterdir()} == {"experiments", "params.yaml"}


@pytest.mark.parametrize("name", ["../profile/smoke", "", ".", "smoke.yaml", "/etc/passwd"])
def test_a_profile_is_named_not_addressed(project: Path, name: str) -> None:
    for make in (lambda: choose(project / "params.yaml", name, project),
                 lambda: profile_tree(name, project)):  # fmt: skip
        with pytest.raises(PagodaError, match="no profile"):
            make()


def test_values_of_ones_own_are_dropped_on_request_only(project: Path) -> None:
    params = project / "params.yaml"
    choose(params, "fashion", project)  # from one profile to another: nothing to lose
    params.write_text(params.read_text().replace("seed: 0\n", "seed: 5\n", 1))
    before = params.read_bytes()
    with pytest.raises(PagodaError, match=r"lose values .* profile fashion: seed = 5; keep a copy"):
        choose(params, "smoke", project)
    assert params.read_bytes() == before
    choose(params, "smoke", project, reset=True)
    assert load(params).seed == 0
    params.write_text(yaml.safe_dump(tiny_tree(name="own")))
    with pytest.raises(PagodaError, match=r"not those of any profile: .* more; keep a copy"):
        choose(params, "smoke", project)


def test_a_new_file_is_simply_written_and_a_device_never_is(project: Path) -> None:
    choose(project / "new.yaml", "smoke", project)
    assert load(project / "new.yaml").name == "smoke"
    with pytest.raises(PagodaError, match="is a folder, so nothing is written"):
        choose(project / "experiments", "smoke", project, reset=True)
    os.mkfifo(project / "pipe")
    with pytest.raises(PagodaError, match="is a link or a device, no plain file"):
        choose(project / "pipe", "smoke", project, reset=True)


def test_outside_a_clone_the_profiles_are_those_of_the_package(tmp_path: Path) -> None:
    assert profile_tree("fashion", tmp_path) == profile_tree("fashion", ROOT)
    with pytest.raises(PagodaError, match=r"no profile 'mine' in .*; there are .*fashion"):
        profile_tree("mine", tmp_path)


def test_what_was_tuned_becomes_the_profile(project: Path) -> None:
    params, file = project / "params.yaml", project / "experiments/profile/smoke.yaml"
    head, before = file.read_text().partition("defaults:")[0], len(file.read_text().splitlines())
    tuned = smoke_tree(base_res=16, **{"diffusion.rho": 6.0, "data.path": "x"})
    params.write_text(yaml.safe_dump(tuned))
    save(params, "smoke", project)
    assert profile_tree("smoke", project) == tuned
    assert file.read_text().startswith(head + "defaults: [/base, _self_]\nname: smoke\n")
    assert len(file.read_text().splitlines()) <= before + 4  # base_res, path, and rho of a section
    params.write_text(yaml.safe_dump(tuned | {"seed": -1}))
    with pytest.raises(PagodaError, match="seed = -1"):
        save(params, "smoke", project)
    assert profile_tree("smoke", project) == tuned


def test_lists_that_cannot_be_put_into_the_text_change_nothing(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    for text in (
        "{base_res: 8, target_res: 16, resolutions: [], growth: {}}\n",
        "base_res: 8\ntarget_res: 16\nresolutions: [4]\n",
        "base_res: 010\ntarget_res: 16\nresolutions: []\ngrowth: {}\n",
        "- base_res\n",
    ):
        params.write_text(text)
        with pytest.raises(PagodaError, match=r"params\.yaml"):
            rewrite(params)
        assert params.read_text() == text
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]


def compose_in(project: Path, tree: Any, *overrides: str) -> dict[str, Any]:
    """As ``dvc exp run -S``, with the project's own profiles."""
    from dvc.utils.hydra import compose_and_dump

    file = project / "params.yaml"
    file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    folder = str(project / "experiments")
    compose_and_dump(file, folder, None, "compose", str(ROOT), list(overrides))
    return dict(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("teacher.optim.lr=abc", "teacher.optim.lr = 'abc'; it must be a number"),
        ("teacher.optim.batch=33", "teacher.optim.batch = 33; it must be a divisor"),
        ("diffusion.rho=inf", "diffusion.rho = inf; it must be a finite number"),
        ("diffusion.rho=nan", "diffusion.rho = nan; it must be a finite number"),
        ("seed=010", "seed = '010'; it must be a whole number"),
        ("name=../up", "name = '../up'; it must be a name"),
        ("+teacher.optim.rate=1", "unknown key teacher.optim.rate"),
        ("~seed", "missing key seed"),
        ("profile=smokey", "no profile smokey; there are class_ratio, "),
        ("resolutions=[8,32]", "both lists are derived"),
        ("growth=null", "growth = None"),
    ],
)
def test_a_bad_value_is_refused_when_it_is_composed(
    tmp_path: Path, override: str, words: str
) -> None:
    from dvc.exceptions import DvcException  # DVC prints its line, and no more

    with pytest.raises(DvcException) as caught:
        compose(tmp_path, smoke_tree(), override)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == smoke_tree()


@pytest.mark.parametrize(
    ("before", "after"),
    [("seed: 0\n", "seed: 010\n"), ("seed: 0\n", "seed: 1:30\n"), ("rho: 7.0", "rho: .inf"),
     ("name: smoke", "name: 2024-01-01"), ("seed: 0\n", "seed: 0\nseed: 1\n")],
)  # fmt: skip
def test_a_hand_edit_is_read_as_pagoda_reads_it(project: Path, before: str, after: str) -> None:
    from dvc.exceptions import DvcException

    text = yaml.safe_dump(smoke_tree()).replace(before, after, 1)
    with pytest.raises(DvcException, match=str(project / "params.yaml")):
        compose_in(project, text)
    assert (project / "params.yaml").read_text() == text


def test_references_between_values_are_resolved_before_the_check(project: Path) -> None:
    profile(project, MINE + "evaluate: {batch: '${teacher.optim.batch}'}\n")
    tree = compose_in(project, smoke_tree(), "profile=mine", "base_res=16")
    assert tree["evaluate"]["batch"] == 64 and tree["resolutions"] == [16, 32]


def test_other_programs_of_hydra_are_left_alone(tmp_path: Path) -> None:
    from dvc.utils.hydra import compose_and_dump

    (tmp_path / "theirs.yaml").write_text("day: 2024-01-01\nseed: 010\n")
    out = tmp_path / "out.yaml"
    compose_and_dump(out, str(tmp_path), None, "theirs", str(ROOT), [])
    assert yaml.safe_load(out.read_text())["seed"] == 8


def git(folder: Path, *args: str) -> None:
    who = ["-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run(["git", *who, *args], cwd=folder, check=True, capture_output=True)


def dvc(folder: Path, *args: str, path: str = str(Path(sys.executable).parent)) -> tuple[int, str]:
    """``dvc ARGS`` with the environment's programs first, unless another path is given."""
    command = [sys.executable, "-m", "dvc", *args]
    env = os.environ | {"PATH": f"{path}{os.pathsep}/usr/bin{os.pathsep}/bin"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with our composition and one stage, ``teacher``, that has run."""
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "experiments", folder / "experiments", symlinks=True,
                    ignore=shutil.ignore_patterns("dvc.yaml", "dvc.lock"))  # fmt: skip
    shutil.copytree(ROOT / "hydra_plugins", folder / "hydra_plugins")
    (folder / "pagoda").symlink_to(ROOT / "pagoda")
    (folder / "params.yaml").write_text(yaml.safe_dump(smoke_tree()))
    stage = {"cmd": "python -m pagoda --version > model", "params": ["teacher"], "outs": ["model"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"teacher": stage}}))
    git(folder, "init", "-q")
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    (folder / ".gitignore").write_text("/model\n/.dvc/cache\n/.dvc/tmp\n__pycache__\n")
    status, said = dvc(folder, "repro", "-q")
    assert status == 0, said
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


@pytest.mark.parametrize("queue", [(), pytest.param(("--queue",), marks=pytest.mark.slow)])
def test_dvc_refuses_before_it_touches_anything(repository: Path, queue: tuple[str, ...]) -> None:
    params, model = repository / "params.yaml", repository / "model"
    before = params.read_bytes(), model.read_bytes()
    status, said = dvc(repository, "exp", "run", *queue, "-S", "teacher.optim.lr=abc")
    assert status == 255
    assert said.startswith("ERROR: params.yaml, which stays as it was: teacher.optim.lr = 'abc';")
    assert len(said.strip().splitlines()) == 1
    assert (params.read_bytes(), model.read_bytes()) == before


@pytest.mark.longer
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.source=folder", "data.path=nosuch"], "data.path = nosuch: there is no such folder"),
        (["data.train_images=1"], "data.train_images = 1; it must be 2 or more"),
    ],
)
def test_images_that_are_not_there_are_refused_before_anything_is_touched(
    repository: Path, overrides: list[str], words: str
) -> None:
    params, model = repository / "params.yaml", repository / "model"
    before = params.read_bytes(), model.read_bytes()
    changes = [f"-S{override}" for override in [*overrides, "teacher.optim.lr=0.002"]]
    status, said = dvc(repository, "exp", "run", *changes)
    assert status == 255 and len(said.strip().splitlines()) == 1
    assert words in said
    assert (params.read_bytes(), model.read_bytes()) == before


@pytest.mark.longer
def test_images_that_were_cut_already_need_not_be_here(repository: Path) -> None:
    """In a clone that pulled what others made, whatever reads cut images runs."""
    params = repository / "params.yaml"
    before = params.read_text()
    gone = smoke_tree() | {"data": smoke_tree()["data"] | {"source": "folder", "path": "gone"}}
    params.write_text(yaml.safe_dump(gone))
    try:
        status, said = dvc(repository, "exp", "run", "-S", "teacher.optim.lr=0.002")
        assert status == 0, said
    finally:
        params.write_text(before)


def test_without_the_environment_dvc_ends_at_once(repository: Path, tmp_path: Path) -> None:
    """``python`` is one that has none of the packages, as where nothing is activated."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys._base_executable} -I -S "$@"\n')  # type: ignore[attr-defined]
    bare.chmod(0o755)
    before = (repository / "params.yaml").read_bytes()
    status, said = dvc(repository, "exp", "run", "-S", "teacher.optim.lr=0.002", path=str(tmp_path))
    assert status == 255 and len(said.strip().splitlines()) == 1
    assert str(bare) in said and "source .venv/bin/activate" in said
    assert (repository / "params.yaml").read_bytes() == before
