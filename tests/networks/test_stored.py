"""A model's folder whose weights or card are not a network's: one line, at every kind of model."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.networks.classifier import FeatureNetwork, load_feature_network
from pagoda.networks.denoiser import Denoiser, load_denoiser
from pagoda.networks.generator import Generator, load_generator
from pagoda.networks.super_resolution import SuperResolver, load_super_resolver
from pagoda.networks.unet import UNetSpec
from pagoda.tensors import save_tensors

SPEC = UNetSpec(8, 16, (1, 2), 1, (4,), 16, 0.0, 3)
State = dict[str, Tensor]
Card = dict[str, Any]
FEATURES = FeatureNetwork(3, 16, 4, 6, 2)
MODELS: dict[str, tuple[torch.nn.Module, Card, Callable[[State, Card], torch.nn.Module]]] = {
    "teacher": (d := Denoiser(SPEC, 0.5), d.card(), load_denoiser),
    "generator": (
        g := Generator(SPEC, [(16, 1)], sigma_max=80.0, sigma_data=0.5, output_scale=1.0),
        g.card(),
        load_generator,
    ),
    "super_resolution": (s := SuperResolver(SPEC, 0.5), s.card(), load_super_resolver),
    "features": (FEATURES, {"architecture": FEATURES.architecture}, load_feature_network),
}


def opened(kind: str, folder: Path, state: State, card: Any) -> torch.nn.Module:
    """Written past our own checks, as a stranger would, under a sound manifest."""
    with artifacts.create(folder, kind, config={}) as out:
        save_tensors(out / "model.safetensors", state)
        (out / "card.json").write_text(json.dumps(card))
    return artifacts.open_artifact(folder, kind).network(MODELS[kind][2])


def first(state: State) -> str:
    return next(name for name, value in state.items() if value.is_floating_point() and value.ndim)


WEIGHTS: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (lambda s: s.pop(first(s)), "lacks the weights of"),
    "extra": (lambda s: s.update(more=torch.ones(2)), "has more, which its network does not have"),
    "misshapen": (lambda s: s.update({first(s): torch.ones(7)}), r"is \(7,\), not \("),
    "whole numbers": (lambda s: s.update({first(s): s[first(s)].long()}), "int64, not float32"),
    "NaN": (lambda s: s.update({first(s): s[first(s)] * torch.nan}), "holds NaN or infinity"),
    "too large for float32": (
        lambda s: s.update({first(s): torch.full_like(s[first(s)], 1e300, dtype=torch.float64)}),
        "holds NaN or infinity",
    ),
}


@pytest.mark.parametrize("change", WEIGHTS)
@pytest.mark.parametrize("kind", MODELS)
def test_weights_of_another_network(kind: str, change: str, tmp_path: Path) -> None:
    module, card, _ = MODELS[kind]
    state = dict(module.state_dict())
    back = opened(kind, tmp_path / "sound", state, card)
    assert all(torch.equal(v, state[k]) for k, v in back.state_dict().items())
    assert not back.training
    act, said = WEIGHTS[change]
    act(state)
    with pytest.raises(PagodaError, match=said) as raised:
        opened(kind, tmp_path / "m", state, card)
    assert "\n" not in str(raised.value) and str(tmp_path / "m") in str(raised.value)


def keys(card: Card, *above: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in card.items():
        found += [(*above, key), *(keys(value, *above, key) if isinstance(value, dict) else [])]
    return found


OPTIONAL = {"time_scale", "augment_labels", "min_group"}  # cards of before there were these
CARDS = [(kind, key) for kind, (_, card, _) in MODELS.items() for key in keys(card)]


@pytest.mark.parametrize(("kind", "key"), CARDS, ids=lambda v: v if isinstance(v, str) else v[-1])
def test_a_card_without_a_key_or_with_nonsense_there(
    kind: str, key: tuple[str, ...], tmp_path: Path
) -> None:
    module, sound, _ = MODELS[kind]
    state = dict(module.state_dict())
    nonsense: list[Any] = [..., None, "x", -1, {}]
    for value in nonsense:
        card = copy.deepcopy(sound)
        inner = card
        for step in key[:-1]:
            inner = inner[step]
        if value is ...:
            del inner[key[-1]]
            if key[-1] in OPTIONAL:
                continue
        else:
            inner[key[-1]] = value
        with pytest.raises(PagodaError) as raised:
            opened(kind, tmp_path / "m", state, card)
        assert "\n" not in str(raised.value) and str(tmp_path / "m") in str(raised.value)


@pytest.mark.parametrize("card", [[], 3, {}, {"unet": 3, "architecture": [1]}])
@pytest.mark.parametrize("kind", MODELS)
def test_a_card_that_is_none(kind: str, card: Any, tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match=r"card\.json is damaged") as raised:
        opened(kind, tmp_path / "m", dict(MODELS[kind][0].state_dict()), card)
    assert "\n" not in str(raised.value)


def test_a_card_of_a_huge_network_makes_none(tmp_path: Path) -> None:
    """2^20 channels would take tebibytes; the weights are compared first."""
    module, card, _ = MODELS["generator"]
    card = {**card, "unet": card["unet"] | {"channels": 1 << 20}}
    with pytest.raises(PagodaError, match="is damaged"):
        opened("generator", tmp_path / "m", dict(module.state_dict()), card)


def test_looking_at_the_shapes_first_draws_no_random_number(tmp_path: Path) -> None:
    """What is drawn after a network was opened is what was drawn before shapes were compared."""
    module, card, load = MODELS["generator"]
    torch.manual_seed(0)
    load(module.state_dict(), card)
    after = torch.rand(3)
    torch.manual_seed(0)
    Generator(SPEC, [(16, 1)], sigma_max=80.0, sigma_data=0.5, output_scale=1.0)
    assert torch.equal(torch.rand(3), after)
