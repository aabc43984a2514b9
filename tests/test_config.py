"""``params.yaml``: what is wrong is said in one line; what is published loads."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pagoda.config import Config, load, parse
from pagoda.derive import choose
from pagoda.errors import PagodaError
from tests.tiny import ROOT, override, smoke_tree, tiny_tree

PROFILES = sorted(p.stem for p in (ROOT / "experiments" / "profile").glob("*.yaml"))
FILE = "some/params.yaml"


def error_line(tree: Any) -> str:
    """The one line that a bad tree gets."""
    with pytest.raises(PagodaError) as caught:
        parse(tree, FILE)
    line = str(caught.value)
    assert line and "\n" not in line
    assert line.startswith(FILE)
    return line


def fields(
    cls: type = Config, prefix: str = ""
) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    """Every field of the configuration: dotted key, type, field."""
    cls = cls.select({}) if hasattr(cls, "select") else cls
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield f"{prefix}{field.name}", hints[field.name], field
        if dataclasses.is_dataclass(hints[field.name]):
            yield from fields(hints[field.name], f"{prefix}{field.name}.")


LEAVES = [(k, h, f) for k, h, f in fields() if not dataclasses.is_dataclass(h)]


def bare(hint: Any) -> Any:
    """``int | None`` -> ``int``."""
    if typing.get_origin(hint) is types.UnionType:
        return next(a for a in typing.get_args(hint) if a is not type(None))
    return hint


def forbidden() -> Iterator[tuple[str, Any, str]]:
    """For each rule of each field: key, a value just outside it, what the message must allow."""
    for key, hint, field in LEAVES:
        rules, kind = field.metadata, bare(hint)
        if rules["choices"]:
            yield key, "no-such-choice", ", ".join(rules["choices"])
        if rules["power_of_two"]:
            yield key, 12, "a power of two"
            yield key, 0, "a power of two"
            continue
        step = 1 if kind is int else 0.001
        for rule, outside in (("ge", -step), ("gt", 0), ("le", step), ("lt", 0)):
            if (bound := rules[rule]) is not None:
                yield key, kind(bound + outside), f"{bound:g}"


@pytest.mark.parametrize(("key", "value", "allowed"), list(forbidden()))
def test_impossible_value(key: str, value: Any, allowed: str) -> None:
    line = error_line(override(smoke_tree(), {key: value}))
    assert f"{key} = {value!r}; it must be" in line
    assert allowed in line


@pytest.mark.parametrize("key", [k for k, _, _ in LEAVES])
def test_wrong_type(key: str) -> None:
    wrong = 7 if key == "growth" else {"not": [True]}
    assert f"{key} = {wrong!r}; it must be" in error_line(override(smoke_tree(), {key: wrong}))


@pytest.mark.parametrize("key", [k for k, h, _ in LEAVES if bare(h) in (int, float)])
def test_truth_and_text_are_no_numbers(key: str) -> None:
    for value in (True, "many"):
        line = error_line(override(smoke_tree(), {key: value}))
        assert f"{key} = {value!r}" in line
        assert "number" in line


@pytest.mark.parametrize("key", [k for k, _, f in fields() if not f.kw_only])
def test_missing_key(key: str) -> None:
    tree = smoke_tree()
    *path, last = key.split(".")
    node = tree
    for name in path:
        node = node[name]
    del node[last]
    assert f"missing key {key}" in error_line(tree)


@pytest.mark.parametrize("section", ["", "teacher.", "teacher.optim.", "grow.loss."])
def test_unknown_key_is_named_with_the_known_ones(section: str) -> None:
    tree = smoke_tree()
    node = tree
    for name in section.split(".")[:-1]:
        node = node[name]
    known = sorted(node)
    node["learning_rate"] = 1
    line = error_line(tree)
    assert f"unknown key {section}learning_rate" in line
    assert all(k in line for k in known)


RELATIONS: list[tuple[dict[str, Any], str, str]] = [
    ({"base_res": 64}, "base_res = 64", "at most target_res = 32"),
    (
        {"teacher.optim.batch": 8191},
        "teacher.optim.batch = 8191",
        "divisor of teacher.optim.images",
    ),
    ({"distill.optim.batch": 8191}, "distill.optim.batch = 8191", "divisor"),
    ({"grow.optim.batch": 8191}, "grow.optim.batch = 8191", "divisor"),
    ({"grow.optim.ema_profiles": [0.1, 0.3]}, "ema_profiles = [0.1, 0.3]", "below 0.28"),
    ({"features.batch": 8191}, "features.batch = 8191", "divisor"),
    ({"reference.extractors": []}, "reference.extractors = []", "classifier first"),
    ({"reference.extractors": ["classifier", "vgg"]}, "'vgg'", "inception, dinov2 or custom"),
    ({"reference.extractors": ["inception", "classifier"]}, "'inception'", "classifier first"),
    ({"diffusion.sigma_min": 90.0}, "diffusion.sigma_min = 90.0", "below diffusion.sigma_max"),
    ({"invert.noise": 80.0}, "invert.noise = 80.0", "below diffusion.sigma_max"),
    ({"teacher.network.lowest_res": 16}, "teacher.network.lowest_res = 16", "base_res = 8"),
    ({"teacher.network.channel_mult": [1]}, "teacher.network.channel_mult = [1]", "2 or more"),
    ({"teacher.network.channel_mult": [1, 0, 1, 1]}, "channel_mult = [1, 0, 1, 1]", ">= 1"),
    ({"data.render_res": 16}, "data.render_res = 16", "at least target_res = 32"),
    ({"data.num_classes": 7}, "data.num_classes = 7", "10 for the embedded set"),
    ({"data.source": "npz"}, "data.path = None", "-S data.path=FILE"),
    ({"data.source": "torchvision"}, "data.hub = None", "name of the set"),
    (
        {"distill.loss.regression": "none", "distill.loss.adversarial": "none"},
        "distill.loss.regression = 'none'",
        "other than none",
    ),
    (
        {"grow.loss.separate_update": True, "grow.loss.weighting": "adaptive"},
        "grow.loss.separate_update = True",
        "weighting is fixed",
    ),
    (
        {"distill.loss.separate_update": True, "distill.loss.fakes": "both"},
        "distill.loss.separate_update = True",
        "fakes are prior",
    ),
    ({"grow.loss.weight_min": 99.0}, "grow.loss.weight_min = 99.0", "weight_max"),
    ({"grow.loss.regression": "noise_to_data"}, "'noise_to_data'", "reconstruction or none"),
]


@pytest.mark.parametrize(("values", "what", "allowed"), RELATIONS)
def test_values_that_do_not_go_together(values: dict[str, Any], what: str, allowed: str) -> None:
    line = error_line(override(smoke_tree(), values))
    assert what in line
    assert allowed in line


def test_hand_edit_of_base_res_names_both_remedies() -> None:
    line = error_line(override(smoke_tree(), {"base_res": 16}))
    assert "pagoda derive" in line
    assert "dvc exp run -S base_res=16" in line
    assert "[8, 16, 32]" in line


@pytest.mark.parametrize("tree", [None, 3, "text", ["a", "list"]])
def test_a_file_that_is_no_mapping(tree: Any) -> None:
    assert "mapping" in error_line(tree)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match="run pagoda from the folder"):
        load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("seed: 0\nname: [smoke\n")
    with pytest.raises(PagodaError, match=r"params.yaml line \d+ is not valid YAML"):
        load(tmp_path / "params.yaml")


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    text = yaml.safe_dump(override(smoke_tree(), {"teacher.optim.lr": 7, "grow.optim.lr": 9}))
    text = text.replace("lr: 7", "lr: 2e-3").replace("lr: 9", "lr: 1")
    (tmp_path / "params.yaml").write_text(text)
    config = load(tmp_path / "params.yaml")
    assert config.teacher.optim.lr == 0.002
    assert isinstance(config.grow.optim.lr, float)


def test_every_value_arrives() -> None:
    """The dataclasses hold exactly the tree: nothing is dropped, renamed or defaulted."""
    for base in (8, 16, 32):
        tree = tiny_tree(base_res=base)
        assert dataclasses.asdict(parse(tree)) == tree


def test_configuration_is_frozen() -> None:
    config = parse(smoke_tree())
    for owner in (config, config.teacher.optim):
        with pytest.raises(dataclasses.FrozenInstanceError):
            owner.seed = 1  # type: ignore[union-attr, misc]


def test_every_field_is_documented() -> None:
    for key, hint, field in fields():
        assert len(field.metadata["doc"]) > 3, key
        assert not dataclasses.is_dataclass(hint) or hint.__doc__, key


def compose(tmp_path: Path, params: dict[str, Any], *overrides: str) -> dict[str, Any]:
    """What ``dvc exp run -S <overrides>`` writes into a ``params.yaml`` that held ``params``."""
    from dvc.utils.hydra import compose_and_dump

    shutil.rmtree(tmp_path / "experiments", ignore_errors=True)
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments", symlinks=True)
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(params))
    folder = str(tmp_path / "experiments")
    compose_and_dump(file, folder, None, "compose", str(ROOT), list(overrides))
    return dict(yaml.safe_load(file.read_text()))


def test_params_reach_the_composition_through_a_relative_link() -> None:
    assert os.readlink(ROOT / "experiments" / "params.yaml") == "../params.yaml"


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_composes_and_loads(profile: str, tmp_path: Path) -> None:
    tree = compose(tmp_path, smoke_tree(), f"profile={profile}")
    assert parse(tree).name == profile
    file = tmp_path / "chosen.yaml"
    choose(file, profile, ROOT)
    assert yaml.safe_load(file.read_text()) == tree


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_takes_every_base_resolution(profile: str, tmp_path: Path) -> None:
    start = compose(tmp_path, smoke_tree(), f"profile={profile}")
    for base in start["resolutions"]:
        tree = compose(tmp_path, start, f"base_res={base}")
        config = parse(tree)
        assert config.resolutions[0] == base
        assert len(config.growth) == len(config.resolutions) - 1
        changed = {k for k in tree if tree[k] != start[k]}
        assert changed <= {"base_res", "resolutions", "growth"}


def keys(tree: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted keys of all leaves."""
    found: set[str] = set()
    for key, value in tree.items():
        found |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def profile_tree(profile: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "experiments/profile" / f"{profile}.yaml").read_text()))


@pytest.mark.parametrize("profile", PROFILES)
def test_all_profiles_set_the_same_keys(profile: str) -> None:
    """params.yaml, as the last experiment left it, is the base of the next composition."""
    assert keys(profile_tree(profile)) == keys(profile_tree("smoke"))


@pytest.mark.parametrize("profile", PROFILES)
def test_nothing_of_the_last_experiment_survives_a_profile(profile: str, tmp_path: Path) -> None:
    odd = tiny_tree(base_res=16, seed=99, **{"grow.loss.regression": "none", "data.pad_to": 40})
    assert compose(tmp_path, odd, f"profile={profile}") == compose(
        tmp_path, smoke_tree(), f"profile={profile}"
    )


def test_hand_edits_survive_an_experiment(tmp_path: Path) -> None:
    edited = smoke_tree(seed=5)
    assert compose(tmp_path, edited, "evaluate.samples=128")["seed"] == 5


def test_smoke_is_the_committed_params_file(tmp_path: Path) -> None:
    """The committed file: the one in the folder may hold another experiment's parameters."""
    command = ["git", "show", "HEAD:params.yaml"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip("no git checkout")
    assert compose(tmp_path, tiny_tree(), "profile=smoke") == yaml.safe_load(shown.stdout)


@pytest.mark.parametrize("value", ["48", "64", "0", "big"])
def test_composition_refuses_an_impossible_base_res(value: str, tmp_path: Path) -> None:
    from omegaconf.errors import OmegaConfBaseException

    with pytest.raises(OmegaConfBaseException, match=f"base_res = '?{value}'?; it must be"):
        compose(tmp_path, smoke_tree(), f"base_res={value}")
