"""What several files say is the same: version, Pythons, arguments of the container."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import yaml

import pagoda
from tests.tiny import ROOT


def read(file: str) -> Any:
    return yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_one_version_and_one_licence() -> None:
    citation, project = read("CITATION.cff"), PROJECT["project"]
    assert citation["version"] == project["version"] == pagoda.__version__
    assert citation["license"] == project["license"]


def test_the_workflow_runs_all_checks_on_every_supported_python() -> None:
    (job,) = read(".github/workflows/checks.yml")["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    minors = [int(version.removeprefix("3.")) for version in job["strategy"]["matrix"]["python"]]
    lowest, beyond = minors[0], minors[-1] + 1
    assert minors == list(range(lowest, beyond))
    assert PROJECT["project"]["requires-python"] == f">=3.{lowest},<3.{beyond}"


def test_the_development_container_sets_what_the_dockerfile_takes() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    taken = {line.removeprefix("ARG ").partition("=")[0] for line in lines if line[:4] == "ARG "}
    assert container["build"]["args"].keys() == taken
    assert f"WORKDIR {container['workspaceFolder']}" in lines


def test_the_wheel_holds_the_profiles_and_its_types() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    kept = wheel["force-include"]
    assert all((ROOT / file).exists() for file in kept) and "experiments/profile" in kept
    assert all(name.startswith("pagoda/experiments/") for name in kept.values())
    assert (ROOT / "pagoda/py.typed").is_file()
