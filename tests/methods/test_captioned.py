"""The guided objective of generators that are told captions, discriminated by token."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from pagoda.methods.guided import Guided
from pagoda.methods.one_step import OneStep
from pagoda.networks.captions import CaptionStates, CaptionTable
from pagoda.networks.generator import Generator, generator_from_teacher, grow
from pagoda.networks.token_discriminator import TableTokens, TokenDiscriminator
from pagoda.pipeline.stages.teacher import told
from pagoda.training.method import Given
from tests.methods.small import CLASSES, Case, denoiser, given, once, section

EMBED = 8
TOKENS: dict[str, Any] = {
    "prior_batch": 5, "loss.adversarial": "hinge", "loss.weight": 0.3,
    "discriminator.kind": "tokens", "discriminator.backbones": ["test_efficientnet"],
    "discriminator.weights": "random", "discriminator.input_side": 64,
    "discriminator.augment": True, "estimator.init": "random",
}  # fmt: skip


def states() -> CaptionStates:
    """Captions of three, two, one and three tokens."""
    rng = torch.Generator().manual_seed(6)
    there = torch.arange(3) < torch.tensor([3, 2, 1, 3])[:, None]
    pooled = torch.nn.functional.normalize(torch.randn(CLASSES, EMBED, generator=rng), dim=1)
    return CaptionStates(torch.randn(CLASSES, 3, 6, generator=rng), pooled * EMBED**0.5, there)


def captioned(case: Case, **changes: Any) -> Given:
    """What a stage hands over where labels are captions."""
    network: Generator = generator_from_teacher(
        told(denoiser(), states()), sigma_max=80.0, output="denoiser"
    )
    if case.network == "grown":
        network = grow(network, channels=8, blocks=1)
        network.freeze_base(1)
    return dataclasses.replace(given(case), network=network, **changes)


@pytest.mark.parametrize("network", ["generator", "grown"])
@pytest.mark.parametrize("method", [Guided, OneStep])
def test_the_discriminator_of_tokens_is_told_the_captions_of_the_generator(
    method: type[OneStep], network: str
) -> None:
    name = "guided" if method is Guided else "one_step"
    settings = {k: v for k, v in TOKENS.items() if name == "guided" or "estimator" not in k}
    case = Case(name, network, settings)
    made = method(section(case), captioned(case))
    judge, table = made.discriminator, made.generator.trunk.label
    assert isinstance(judge, TokenDiscriminator) and isinstance(table, CaptionTable)
    told_by = judge.caption.token
    assert isinstance(told_by, TableTokens)
    for part in ("tokens", "pooled", "there"):
        assert torch.equal(getattr(told_by, part), getattr(table, part))
    before = {k: v.clone() for k, v in judge.caption.state_dict().items()}
    stats = once(made)
    assert all(torch.isfinite(torch.tensor(value)) for value in stats.values())
    after = judge.caption.state_dict()
    assert not [k for k in before if "weight" in k and torch.equal(before[k], after[k])]
