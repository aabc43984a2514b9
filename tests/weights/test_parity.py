"""Files that the reference code wrote compute here what they compute there.

``make_fixtures.py`` made them; ``fixtures/provenance.json`` says from which revisions.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pagoda import artifacts
from pagoda.artifacts import Artifact
from pagoda.errors import PagodaError
from pagoda.networks.denoiser import load_denoiser
from pagoda.networks.generator import load_generator
from pagoda.pipeline.stages.import_weights import run
from pagoda.weights.converted import Options
from tests.weights.released import FIXTURES, unpack

ADM = Options(resolution=8, head_channels=16)
TOLERANCE = 1e-10  # in float64, against the copies that compute in float64
SINGLE, HALF = 1e-5, 1e-2  # against the unchanged code in float32; its attention may use float16


def imported(name: str, folder: Path, options: Options, kind: str) -> Artifact:
    run(unpack(name, folder), folder / "out", options)
    artifact = artifacts.open_artifact(folder / "out", kind)
    assert artifact.card()["imported"]["unused"] == []
    return artifact


def expected(prefix: str) -> dict[str, Tensor]:
    found = load_file(FIXTURES / "expected.safetensors")
    return {k.partition(".")[2]: v for k, v in found.items() if k.split(".")[0] == prefix}


def relative(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape and theirs.std() > 0.1
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize(
    ("file", "options", "unchanged"),
    [
        ("edm.pkl", Options(), SINGLE),
        ("consistency_models.pt", Options("teacher", 8, 16), HALF),
    ],
)
def test_a_denoiser(file: str, options: Options, unchanged: float, tmp_path: Path) -> None:
    artifact, e = imported(file, tmp_path, options, "teacher"), expected(file.partition(".")[0])
    assert artifact.card()["unet"]["attention"] == [4]
    denoiser = load_denoiser(artifact.weights(), artifact.card())
    with torch.no_grad():
        single = denoiser(e["x"].float(), e["sigma"].float(), e["labels"])
        out = denoiser.double()(e["x"], e["sigma"], e["labels"])
    assert relative(out, e["out"]) <= TOLERANCE
    assert relative(single, e["unchanged"]) <= unchanged


@pytest.mark.parametrize(
    ("resolution", "levels"), [(8, []), (16, [[32, 2]]), (32, [[64, 2], [32, 2]])]
)
def test_a_generator(resolution: int, levels: list[list[int]], tmp_path: Path) -> None:
    options = ADM if levels else Options("generator", 8, 16)
    name = f"pagoda_{resolution}"
    artifact, e = imported(f"{name}.pt", tmp_path, options, "generator"), expected(name)
    assert artifact.card()["levels"] == levels
    generator = load_generator(artifact.weights(), artifact.card())
    with torch.no_grad():
        single = generator(e["z"].float(), e["labels"])
        out = generator.double()(e["z"], e["labels"])
    assert out.shape[-1] == resolution
    assert relative(out, e["out"]) <= TOLERANCE
    assert relative(single, e["unchanged"]) <= SINGLE


def test_a_grown_generator_is_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match="so it is no teacher"):
        run(unpack("pagoda_16.pt", tmp_path), tmp_path / "out", Options("teacher", 8, 16))


def test_unused_weights_are_named_on_the_card_if_allowed(tmp_path: Path) -> None:
    file = unpack("consistency_models.pt", tmp_path)
    weights: dict[str, Any] = torch.load(file, weights_only=True)
    torch.save(weights | {"input_blocks.1.0.emb_layers_s.1.bias": torch.ones(3)}, file)
    run(file, tmp_path / "out", Options("teacher", 8, 16, allow_unused=True))
    card = artifacts.open_artifact(tmp_path / "out", "teacher").card()
    assert card["imported"]["unused"] == ["input_blocks.1.0.emb_layers_s.1.bias"]


def test_the_fixtures_are_those_of_their_provenance() -> None:
    told = json.loads((FIXTURES / "provenance.json").read_text())
    files = {p.name: p for p in FIXTURES.iterdir() if p.name != "provenance.json"}
    made = {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in files.items()}
    assert made == told["sha256"]
    assert all(len(revision) == 40 for revision in told["revisions"].values())
    assert sum(p.stat().st_size for p in files.values()) < 200_000
