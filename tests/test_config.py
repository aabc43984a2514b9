"""``params.yaml``: what is wrong is said in one line; what is published loads."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pagoda.config import DERIVED, Check, Config, build, for_its_methods, load, opt, parse
from pagoda.errors import PagodaError
from pagoda.pipeline.derive import profile_tree
from pagoda.training.method import METHODS
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


def needed(field: dataclasses.Field[Any]) -> bool:
    """Whether a field has no default."""
    return field.default is field.default_factory is dataclasses.MISSING


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
        many = typing.get_origin(kind) is list
        kind = typing.get_args(kind)[0] if many else kind
        step = 1 if kind is int else 0.001
        for rule, outside in (("ge", -step), ("gt", 0), ("le", step), ("lt", 0)):
            if (bound := rules[rule]) is not None:
                value = kind(bound + outside)
                yield key, [value] if many else value, f"{bound:g}"


@pytest.mark.parametrize(("key", "value", "allowed"), list(forbidden()))
def test_impossible_value(key: str, value: Any, allowed: str) -> None:
    line = error_line(override(smoke_tree(), {key: value}))
    shown = f"{key}[0] = {value[0]!r}" if isinstance(value, list) else f"{key} = {value!r}"
    assert f"{shown}; it must be" in line
    assert allowed in line


@pytest.mark.parametrize(("key", "hint"), [(k, h) for k, h, _ in LEAVES])
def test_wrong_type(key: str, hint: Any) -> None:
    wrong: list[Any] = [7 if key in ("growth", "code") else {"not": [True]}]
    wrong += [True, "many"] if bare(hint) in (int, float) else []
    for value in wrong:
        line = error_line(override(smoke_tree(), {key: value}))
        assert f"{key} = {value!r}; it must be" in line
        assert "number" in line or not isinstance(value, str | bool)


@pytest.mark.parametrize("key", [k for k, _, f in fields() if needed(f)])
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
    ({"reference.extractors": ["classifier", "vgg"]}, "'vgg'", "unknown extractor 'vgg'; it"),
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


def test_reading_a_configuration_imports_no_torch() -> None:
    program = (
        "import sys; from pagoda.config import load; load(); assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


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


@dataclasses.dataclass(frozen=True)
class Plain:
    """A section of which one key may be missing."""

    kind: str = opt("kind of thing", choices=("plain", "long"))
    size: int = opt("its size", default=3, ge=1)
    parts: list[int] = opt("its parts", default=[1, 2])
    place: str = "no key"

    @classmethod
    def select(cls, tree: dict[str, Any]) -> type:
        return Long if tree.get("kind") == "long" else cls

    def checks(self, at: str) -> Iterator[Check]:
        yield self.size != 7, f"{at}size", self.size, "another"


@dataclasses.dataclass(frozen=True)
class Long(Plain):
    """What one of its keys makes of it."""

    length: float = opt("its length", default=None)


def test_a_key_with_a_default_may_be_missing_and_a_key_chooses_the_class() -> None:
    assert build(Plain, {"kind": "plain"}, FILE) == Plain("plain", size=3, parts=[1, 2])
    assert build(Plain, {"kind": "plain", "size": 5}, FILE).size == 5
    assert build(Plain, {"kind": "long", "length": 2}, FILE) == Long("long", length=2.0)
    for tree, words in (
        ({}, "missing key a.kind"), ({"kind": "plain", "length": 2}, "unknown key a.length"),
        ({"kind": "plain", "place": "x"}, "unknown key a.place"),
        ({"kind": "long", "size": 0}, "a.size = 0; it must be >= 1"),
        ({"kind": "plain", "size": 7}, "a.size = 7; it must be another"),
    ):  # fmt: skip
        with pytest.raises(PagodaError, match=words):
            build(Plain, tree, FILE, "a.")


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


_KINDS = "smoke", "imagenet", "latent", "text", "class_ratio", "fashion"


@pytest.mark.parametrize(
    "profile",
    [p if p in _KINDS else pytest.param(p, marks=pytest.mark.longer) for p in PROFILES],
)
def test_a_profile_composes_whatever_was_there(profile: str, tmp_path: Path) -> None:
    """Nothing of the last experiment survives; 'pagoda derive --profile' writes the same."""
    odd = tiny_tree(base_res=16, seed=99, **{"grow.loss.regression": "none", "data.pad_to": 40})
    tree = compose(tmp_path, odd, f"profile={profile}")
    assert parse(tree).name == profile
    assert tree == profile_tree(profile, ROOT)


@pytest.mark.parametrize("profile", ["smoke", "imagenet", "latent", "text"])
def test_a_profile_takes_another_base(profile: str, tmp_path: Path) -> None:
    """Another resolution of the teacher changes what is derived from it, and nothing else."""
    tree = profile_tree(profile, ROOT)
    top = tree["resolutions"][-1]
    other = compose(tmp_path, tree, f"base_res={top}")
    changed = {"base_res": top, "resolutions": [top], "growth": {}}
    if tree["data"]["space"] == "latent":
        here = {"modelled": f"b{top}/codes", "autoencoder": [top], "encode": [top]}
        changed["space"] = tree["space"] | here
    if tree["text"]["captions"] != "none":
        here = {"modelled": f"b{top}/captioned", "caption": [top], "clip": [top], "scorer": [top]}
        changed["space"] = tree["space"] | here | {"reader": f"b{top}/clip"}
    assert parse(other) and other == tree | changed


def keys(tree: dict[str, Any], prefix: str = "") -> set[str]:
    """Dotted keys of all leaves."""
    found: set[str] = set()
    for key, value in tree.items():
        found |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def test_the_base_sets_every_key_of_every_profile() -> None:
    """params.yaml, as the last experiment left it, is the base of the next composition."""
    base = yaml.safe_load((ROOT / "experiments/base.yaml").read_text())
    derived = keys({k: smoke_tree()[k] for k in DERIVED})
    assert keys(base) == keys(smoke_tree()) - derived
    for profile in PROFILES:
        file = ROOT / "experiments/profile" / f"{profile}.yaml"
        own = yaml.safe_load(file.read_text())
        parent = own.pop("defaults")[0]
        assert parent == "/base" or parent in PROFILES
        chosen = tuple(f"{s}." for s in ("distill", "grow") if "method" in own.get(s, {}))
        assert {k for k in keys(own) if not k.startswith(chosen)} <= keys(base), profile


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


@pytest.mark.parametrize("method", ["teacher", "classifier", "cascade", "clip", "autoencoder"])
def test_a_method_that_trains_no_generator_is_refused(method: str) -> None:
    tree = tiny_tree()
    tree["distill"] |= {"method": method}
    with pytest.raises(
        PagodaError, match=rf"distill.method = '{method}' trains no generator; class_ratio"
    ):
        parse(tree, FILE)


def test_a_method_whose_file_is_broken_is_its_own_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sections that name another keep their own keys, as if it were not there."""
    package = importlib.import_module(METHODS)
    monkeypatch.setattr(package, "__path__", [str(tmp_path), *package.__path__])
    (tmp_path / "aaa.py").write_text("import no_such_package\n")
    (tmp_path / "my_gan.py").write_text("class MyGAN:\n    pass\n")
    tree = tiny_tree()
    tree["distill"] |= {"method": "class_ratio"}
    kept = for_its_methods(tree)["distill"]
    assert "loss" not in kept and "pair_share" in kept
    for name, wrong in (
        ("aaa", r"methods/aaa\.py cannot be imported: No module named 'no_such"),
        ("my_gan", r"methods/my_gan\.py has no method MyGan, a class"),
    ):
        tree["distill"]["method"] = name
        with pytest.raises(PagodaError, match=wrong):
            parse(tree, FILE)
