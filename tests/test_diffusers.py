"""An exported generator in the library diffusers: the same images, and no code from a folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pagoda
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import export
from pagoda.pipeline.stages.export import Request
from tests.hub_server import local_hub
from tests.test_hub import program
from tests.tiny_run import GEN, TEACHER

diffusers = pytest.importorskip("diffusers")


@pytest.fixture
def folder(linked_run: Path) -> Path:
    export.run(Request(GEN, Path("out"), diffusers=True))
    return linked_run / "out"


def pixels(images: list[Any]) -> np.ndarray:
    return np.stack([np.asarray(image) for image in images]).transpose(0, 3, 1, 2)


def test_a_pipeline_makes_the_images_of_pagoda(folder: Path) -> None:
    from pagoda.diffusers import PagodaPipeline

    g = pagoda.load(GEN)
    assert isinstance(g, pagoda.Generator)
    pipe = PagodaPipeline.from_pretrained(folder)
    wanted = g.sample(["disc", 3], [4, 0, 9])
    made = pipe(["disc"] * 3 + [3] * 3, [4, 0, 9] * 2).images
    np.testing.assert_array_equal(pixels(made), wanted)
    np.testing.assert_array_equal(pixels(pipe("disc", [4, 0, 9]).images), wanted[:3])
    np.testing.assert_array_equal(pixels(pipe([0, 1, 2]).images)[1], g.sample(1, 1)[0])
    (floats,) = pipe(3, 4, output_type="np", return_dict=False)
    np.testing.assert_array_equal(np.round(255 * floats), wanted[3:4].transpose(0, 2, 3, 1))
    z = g.latents([4, 0, 9])
    (tensors,) = pipe("disc", latents=z, output_type="pt", return_dict=False)
    np.testing.assert_allclose(255 * tensors.numpy(), wanted[:3], atol=1.001)  # another batch
    drawn = [pipe([1, 2], generator=torch.Generator().manual_seed(5)).images for _ in range(2)]
    np.testing.assert_array_equal(pixels(drawn[0]), pixels(drawn[1]))
    for line, call in (
        ("no class", lambda: pipe("cow")),
        ("2 do not go with 3", lambda: pipe([1, 2], [0, 1, 2])),
        ("one of pil, np, pt", lambda: pipe(1, output_type="latent")),
        ("give one of them", lambda: pipe(1, 0, latents=z)),
        ("run in float32", lambda: pipe.to(torch.float16)(1)),
    ):
        with pytest.raises(PagodaError, match=line):
            call()


def test_saved_again_it_is_the_same(folder: Path) -> None:
    from pagoda.diffusers import PagodaPipeline

    pipe = PagodaPipeline.from_pretrained(folder)
    pipe.save_pretrained("saved")
    again = PagodaPipeline.from_pretrained("saved")
    np.testing.assert_array_equal(pixels(pipe([3, 4]).images), pixels(again([3, 4]).images))
    kept = Path("saved/network/model.safetensors").read_bytes()
    assert kept == (folder / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_program_of_diffusers_loads_it_without_remote_code(folder: Path) -> None:
    """In a process of its own, where nothing trusts the folder; then from a hub."""
    pagoda.load("out")  # it is an artifact as before
    names = {file.name for file in folder.iterdir()}
    assert names == {"model.safetensors", "card.json", "manifest.json", "model_index.json",
                     "README.md", "samples.png"}  # fmt: skip
    with local_hub() as hub:
        program(Path.cwd(), hub, _PROGRAM)
        assert set(hub.files["me/rings"]) == names | {".gitattributes"}
    wanted = pagoda.load(GEN).sample([3], [0, 1])
    for file in ("here.npy", "hub.npy"):
        np.testing.assert_array_equal(np.load(file).transpose(0, 3, 1, 2), wanted)


_PROGRAM = """
from diffusers import DiffusionPipeline
try:
    DiffusionPipeline.from_pretrained("out")
except AttributeError as error:
    assert "PagodaPipeline" in str(error)
else:
    raise AssertionError("diffusers imported what a folder names")
import pagoda.diffusers
push(Path("out"), "me/rings")
for name, pipe in (("here", DiffusionPipeline.from_pretrained("out")),
                   ("hub", pagoda.diffusers.PagodaPipeline.from_pretrained("me/rings"))):
    np.save(name, np.stack([np.asarray(image) for image in pipe([3, 3], [0, 1]).images]))
"""


def test_a_damaged_folder_and_a_teacher_are_one_line(folder: Path) -> None:
    from pagoda.diffusers import PagodaPipeline

    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    with pytest.raises(PagodaError, match="checksums differ"):
        PagodaPipeline.from_pretrained(folder)
    with pytest.raises(PagodaError, match="--diffusers is of a generator"):
        export.run(Request(TEACHER, Path("other"), diffusers=True))
    assert not Path("other").exists()
    index = json.loads((folder / "model_index.json").read_text())
    assert index["network"] == ["pagoda.diffusers", "OneStepNetwork"]


def test_without_the_package_nothing_is_written(
    linked_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, "pagoda.diffusers", raising=False)
    with pytest.raises(PagodaError, match="uv sync --extra diffusers") as caught:
        export.run(Request(GEN, Path("out"), diffusers=True))
    assert "\n" not in str(caught.value) and not Path("out").exists()
