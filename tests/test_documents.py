"""YAML as people write it: read as it looks, or refused in one line that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pagoda.config import load, parse_yaml, read_yaml
from pagoda.errors import PagodaError
from pagoda.pipeline.stages.study_spec import load_study
from pagoda.results.claims import read_claims
from tests.tiny import smoke_tree

TEXT = yaml.safe_dump(smoke_tree(), sort_keys=False)


def line_of(path: Path) -> str:
    with pytest.raises(PagodaError) as caught:
        load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    return str(caught.value)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("seed: 0\n", "seed: 010\n", "line 2: seed = '010'; it must be below 2^63 and in plain"),
        ("seed: 0\n", "seed: 1:30\n", "seed = '1:30'"),
        ("seed: 0\n", "seed: 0x1f\n", "seed = '0x1f'"),
        ("seed: 0\n", "seed: 1_000\n", "seed = '1_000'"),
        ("seed: 0\n", f"seed: {'9' * 400}\n", "it must be below 2^63"),
        ("seed: 0\n", f"seed: {'9' * 5000}\n", "it must be below 2^63"),
        ("seed: 0\n", f"seed: {2**63}\n", "it must be below 2^63"),
        ("seed: 0\n", "seed: 0\nseed: 1\n", "line 3: seed is there twice"),
        ("rho: 7.0", "rho: 7.0\n  rho: 8.0", "diffusion.rho is there twice"),
        ("rho: 7.0", "rho: .inf", "diffusion.rho = '.inf'; it must be a finite decimal number"),
        ("rho: 7.0", "rho: .nan", "diffusion.rho = '.nan'"),
        ("rho: 7.0", "rho: 1.0e+999", "diffusion.rho = '1.0e+999'"),
        ("rho: 7.0", "rho: 1e999", "diffusion.rho = inf; it must be a finite number"),
        ("rho: 7.0", "rho: infinity", "diffusion.rho = 'infinity'; it must be a number"),
        ("rho: 7.0", "rho: 1:30.5", "diffusion.rho = '1:30.5'"),
        ("name: smoke", "name: 2024-01-01", "name = '2024-01-01'; it must be text, in quotes"),
        ("name: smoke", "name: a\\tb: c", "line 1 is not valid YAML"),
        ("name: smoke", "name: !!python/name:os.system", "is not valid YAML"),
        ("name: smoke", f"name: {'[' * 1500}{']' * 1500}", "nested too deeply"),
        ("name: smoke", "name: &a [*a]", "name = "),
        ("name: smoke", "name: \x07", "is not valid YAML"),
    ],
)  # fmt: skip
def test_what_yaml_reads_as_something_else(
    tmp_path: Path, before: str, after: str, words: str
) -> None:
    assert TEXT.count(before) == 1 or before.startswith("seed")
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace(before, after, 1))
    assert words in line_of(path)


@pytest.mark.parametrize("name", ["", ".", "..", "../up", "a/b", "/tmp/x", ".hidden", "a b", "ö",
                                  "a\n", "x" * 101])  # fmt: skip
def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(smoke_tree() | {"name": name}))
    assert f"name = {name!r}; it must be a name" in line_of(path) or len(name) > 100


def test_names_that_are_good(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    for good in ("night-1", "2024-01-01", "_x", "A.b_c-9", "7"):
        path.write_text(yaml.safe_dump(smoke_tree() | {"name": good}))
        assert load(path).name == good


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-32"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(TEXT.replace("name: smoke", "name: smoke # Größe").encode(encoding))
    assert "params.yaml line 1 is not UTF-8; save the file as UTF-8" in line_of(path)


def test_a_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert read_yaml(path) == smoke_tree()


def test_plain_values_are_read_as_yaml_reads_them() -> None:
    text = (
        "a: [0, -7, 1.5, 2.0e-3, .5, null, ~, yes, 'x', '010', \"2024-01-01\"]\nb: &k {c: 1}\nd: *k"
    )
    assert parse_yaml(text, "x") == yaml.safe_load(text)


def test_a_bomb_of_aliases_is_read_and_refused_at_once(tmp_path: Path) -> None:
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    path = tmp_path / "params.yaml"
    path.write_text("\n".join(["a0: &a0 x", *rows, TEXT.replace("name: smoke", "name: *a39")]))
    assert "unknown key a0" in line_of(path)
    path.write_text(TEXT.replace("name: smoke", "name: &a0 [" + "[" * 40 + "]" * 41))
    assert "name = [" in line_of(path)


def test_studies_and_claims_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "experiments/mine/study.yaml"
    study.parent.mkdir(parents=True)
    study.write_text("title: a\ntitle: b\nvariants: {}\n")
    with pytest.raises(PagodaError, match="title is there twice"):
        load_study("mine")
    for name in ("../mine", "..", "", "experiments/mine"):
        with pytest.raises(PagodaError, match="no study"):
            load_study(name)
    study.write_text("claims:\n- seeds: 010\n")
    with pytest.raises(PagodaError, match=r"claims\[0\].seeds = '010'"):
        read_claims(tmp_path / "experiments")
    study.write_text("claims: 7\n")
    with pytest.raises(PagodaError, match="must be a list of claims"):
        read_claims(tmp_path / "experiments")
