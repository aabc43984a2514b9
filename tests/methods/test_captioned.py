"""The guided objective of generators that are told captions: by token, and asked of a CLIP."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pagoda import artifacts
from pagoda.config import parse, with_derived
from pagoda.errors import PagodaError
from pagoda.methods.guided import ESTIMATOR, Guided
from pagoda.methods.one_step import OneStep
from pagoda.networks.captions import CaptionStates, CaptionTable
from pagoda.networks.clip import Clip, clip_for_loss
from pagoda.networks.generator import Generator, generator_from_teacher, grow
from pagoda.networks.guidance import ProductEstimator
from pagoda.networks.token_discriminator import TableTokens, TokenDiscriminator
from pagoda.pipeline.stages.compute import Untrained
from pagoda.pipeline.stages.teacher import told
from pagoda.tensors import save_tensors
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import Given, Loss
from tests.methods.small import (
    CASES,
    CLASSES,
    CPU,
    Case,
    assert_same,
    denoiser,
    given,
    go,
    network_of,
    once,
    section,
    state,
)
from tests.tiny import tiny_tree

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


@pytest.mark.longer
@pytest.mark.parametrize("network", ["generator", "grown"])
@pytest.mark.parametrize("method", [Guided, OneStep])
def test_the_discriminator_of_tokens_is_told_the_captions_of_the_generator(
    method: type[OneStep], network: str
) -> None:
    name = "guided" if method is Guided else "one_step"
    settings = {k: v for k, v in TOKENS.items() if name == "guided" or "estimator" not in k}
    case = Case(name, network, settings)
    made = method(section(case), captioned(case))
    discriminator, table = made.discriminator, made.generator.trunk.label
    assert isinstance(discriminator, TokenDiscriminator) and isinstance(table, CaptionTable)
    told_by = discriminator.caption.token
    assert isinstance(told_by, TableTokens)
    for part in ("tokens", "pooled", "there"):
        assert torch.equal(getattr(told_by, part), getattr(table, part))
    before = {k: v.clone() for k, v in discriminator.caption.state_dict().items()}
    stats = once(made)
    assert all(torch.isfinite(torch.tensor(value)) for value in stats.values())
    after = discriminator.caption.state_dict()
    assert not [k for k in before if "weight" in k and torch.equal(before[k], after[k])]


ASKED = {"clip_loss.weight": 2.0, "estimator.init": "random"}


def clip() -> Clip:
    """Of side 8; a captioned image of the small cases has the embedding of its row."""
    network = network_of("clip")
    assert isinstance(network, Clip)
    return network.eval()


def asking(
    network: str = "generator", dtype: torch.dtype = torch.float32, /, **settings: Any
) -> Guided:
    case = Case("guided", network, {**CASES["guided"].settings, "discriminator.r1": 0.0})
    own = captioned(case, clip=clip)
    own = dataclasses.replace(own, images=dataclasses.replace(own.images, dtype=dtype))
    assert own.pairs is not None
    pairs = dataclasses.replace(own.pairs, dtype=dtype)
    made = Guided(section(case, **{**ASKED, **settings}), dataclasses.replace(
        own, pairs=pairs, teacher_pairs=lambda: pairs))  # fmt: skip
    if dtype == torch.float64:
        for module in (*made.players.values(), *made.modules.values()):
            module.double()
    return made


@pytest.mark.longer
def test_without_a_weight_no_clip_is_loaded_and_nothing_changes(tmp_path: Path) -> None:
    def not_loaded() -> Clip:
        raise AssertionError("a CLIP was loaded")

    case = Case("guided", "generator", CASES["guided"].settings)
    plain = Guided(section(case), captioned(case))
    other = Guided(section(case, **{"clip_loss.kind": "cosine"}), captioned(case, clip=not_loaded))
    assert_same(go(plain, tmp_path / "a"), go(other, tmp_path / "b"))
    assert "clip_loss" not in other.card()


@pytest.mark.longer
@pytest.mark.parametrize("network", ["generator", "grown"])
@pytest.mark.parametrize("kind", ["angle", "cosine"])
def test_its_gradient_brings_images_to_their_captions(network: str, kind: str) -> None:
    """Above its side, and at it; the discriminator and the CLIP itself stay what they are."""
    made = asking(
        network, torch.float32, **{"clip_loss.kind": kind, "optim.lr": 1e-2, "optim.warmup": 0.0}
    )
    assert made.clip is not None
    frozen = {k: v.clone() for k, v in made.clip.state_dict().items()}
    losses = []
    for i in range(20):
        torch.manual_seed(0)
        loss = made._clip_loss(GlobalDraw(CPU), made.clip, 0.5)
        losses.append(float(loss.stats["loss_clip"]))
        assert not loss.last and float(loss.value.detach()) == pytest.approx(
            2 * losses[-1], rel=1e-5
        )
        made.player.backward(loss.value)
        moved = [p for p in made.generator.parameters() if p.grad is not None and p.grad.any()]
        assert moved
        made.player.update(i)
    assert losses[-1] < losses[0] - 0.05
    assert not [k for k, v in made.clip.state_dict().items() if not torch.equal(v, frozen[k])]


def test_the_term_adds_its_gradient_to_that_of_the_objective() -> None:
    """The first update is by the sum of both."""
    case = Case("guided", "generator", {**CASES["guided"].settings, "discriminator.r1": 0.0})
    plain, both = Guided(section(case), captioned(case)), asking()

    def gradients(method: Guided, losses: Iterable[Loss]) -> dict[str, torch.Tensor]:
        for loss in losses:
            method.players[loss.player].backward(loss.value)
        named = method.generator.named_parameters()
        found = {k: p.grad.clone() for k, p in named if p.grad is not None}
        method.player.network.zero_grad()
        return found

    def step(method: Guided, seed: int) -> Iterator[Loss]:
        torch.manual_seed(seed)
        yield from OneStep.step(method, GlobalDraw(CPU), 0, 0.5)

    assert both.clip is not None
    torch.manual_seed(1)
    term = [both._clip_loss(GlobalDraw(CPU), both.clip, 0.5)]
    added = gradients(both, term)
    objective = gradients(plain, step(plain, 0))
    torch.manual_seed(1)
    term = [both._clip_loss(GlobalDraw(CPU), both.clip, 0.5)]
    found = gradients(both, itertools.chain(term, step(both, 0)))
    assert added.keys() <= objective.keys() == found.keys() and len(added) > 10
    for key, value in objective.items():
        wanted = value + added.get(key, torch.zeros_like(value))
        torch.testing.assert_close(found[key], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.longer
def test_micro_batches_train_as_the_whole_batch() -> None:
    whole, parts = (
        asking("generator", torch.float64, **{"optim.micro_batch": m}) for m in (None, 3)
    )
    assert once(parts) == pytest.approx(once(whole), rel=1e-9)
    after = state(parts)
    for key, value in state(whole).items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=1e-6)


def test_images_of_another_side_are_resized() -> None:
    own, x = clip(), torch.rand(2, 3, 16, 16) * 2 - 1
    small = torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(own.images(x), own.images(small))
    assert own.images(x[:, :, :4, :4]).shape == (2, EMBED)


PRODUCTS = {"estimator.kind": "clip", "estimator.init": "random", "clip_loss.weight": 0.0}


def test_an_estimator_of_products_sees_image_and_caption_through_the_clip() -> None:
    """The matrix a b^T of both embeddings, at the teacher's resolution."""
    made = asking("generator", torch.float32, **PRODUCTS)
    assert isinstance(made.estimator, ProductEstimator) and made.clip is not None
    x, labels = torch.rand(3, 3, 16, 16) * 2 - 1, torch.tensor([2, 0, 2])
    a = made.clip.images(torch.nn.functional.avg_pool2d(x, 2)) * EMBED**0.5
    b = states().pooled[labels]
    products = torch.stack([torch.outer(*both) for both in zip(a, b, strict=True)])[:, None]
    expected = made.estimator.of_products(products, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(made.estimator(x, labels), expected)
    assert not [k for k in made.estimator.state_dict() if "clip" in k]
    stats = once(made)
    assert stats["loss_omega"] > 0 and "loss_clip" not in stats


@pytest.mark.longer
def test_it_tells_weights_of_captions_that_it_never_saw() -> None:
    """The weight is the agreement of image and caption; the caption's number says nothing of it."""
    torch.manual_seed(0)
    seen, width, low, high = 48, 16, 1.0, 5.0
    table = torch.nn.functional.normalize(torch.randn(64, width), dim=1) * width**0.5
    known = SimpleNamespace(
        spec=SimpleNamespace(embed=width),
        images=lambda x: torch.nn.functional.normalize(x.flatten(1)[:, :width], dim=1),
    )

    def batch(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(len(rows), 3, 8, 8)
        x.flatten(1)[:, :width] = table[rows] * torch.randn(len(rows), 1) + torch.randn(
            len(rows), width
        )
        return x, low + (high - low) * torch.sigmoid((known.images(x) * table[rows]).sum(1))

    estimator = ProductEstimator(8, 8, low, high, known, table)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(estimator.parameters(), lr=3e-3)
    for _ in range(150):
        rows = torch.randint(seen, (64,))
        x, omega = batch(rows)
        optimizer.zero_grad()
        (estimator(x, rows) - omega).square().mean().backward()
        optimizer.step()
    rows = torch.arange(seen, 64).repeat(16)
    x, omega = batch(rows)
    with torch.no_grad():
        error = (estimator(x, rows) - omega).square().mean()
        other = (estimator(x, rows.roll(1)) - omega).square().mean()
    assert error < 0.1 * omega.var() < other


def test_growth_takes_the_estimator_of_products_that_distillation_left(tmp_path: Path) -> None:
    below = asking("generator", torch.float32, **PRODUCTS)
    with artifacts.create(tmp_path / "below", "generator", config={}, inputs={}) as folder:
        artifacts.save_model(folder, below.generator, {**below.generator.card(), **below.card()})
        weights = {k: v.contiguous() for k, v in below.beside()[ESTIMATOR].items()}
        save_tensors(folder / "estimator.safetensors", weights)
    found = artifacts.open_artifact(tmp_path / "below", "generator")
    case = Case("guided", "grown", {**CASES["guided"].settings, "discriminator.r1": 0.0})
    own = captioned(case, below=found, teacher_pairs=None, clip=clip)
    kept = {"estimator.kind": "clip", "estimator.tolerance": 2.0, "estimator.init": "below"}
    method = Guided(section(case, **kept), own)
    x, labels = torch.rand(3, 3, 16, 16) * 2 - 1, torch.arange(3)
    assert torch.equal(method.estimator(x, labels), below.estimator(x, labels))
    assert method.card()[ESTIMATOR] == below.card()[ESTIMATOR]
    once(method)
    with pytest.raises(PagodaError, match=r"of kind clip, and image is asked.*kind: clip, or dis"):
        Guided(section(case, **{**kept, "estimator.kind": "image"}), own)


def images_of(scorer: Clip | None, fingerprint: str = "b") -> Any:
    """Captioned images with a CLIP, and with one that scores."""
    first = clip()
    card = {"fingerprint": "a", "encoder": first.card()}
    weights = {f"encoder.{k}": v for k, v in first.state_dict().items()}
    if scorer is not None:
        card["scorer"] = scorer.card() | {"fingerprint": fingerprint}
        weights |= {f"scorer.{k}": v for k, v in scorer.state_dict().items()}
    return SimpleNamespace(
        card=lambda: {"captions": card}, weights=lambda name: weights, path=Path("captioned/8")
    )


def test_the_clip_that_scores_is_not_asked() -> None:
    other = clip()
    with torch.no_grad():
        other.clip.logit_scale.add_(1.0)
    for images in (images_of(other), images_of(None)):
        assert torch.equal(clip_for_loss(images).clip.logit_scale, clip().clip.logit_scale)
    for images in (images_of(other, "a"), images_of(clip())):
        with pytest.raises(PagodaError, match="is the one that scores samples") as error:
            clip_for_loss(images)
        assert "\n" not in str(error.value)
    of_others = SimpleNamespace(card=lambda: {"captions": {"encoder": {"name": "t5:x"}}}, path="x")
    with pytest.raises(PagodaError, match="has no CLIP with an image encoder"):
        clip_for_loss(of_others)  # type: ignore[arg-type]


def test_of_classes_nothing_is_asked() -> None:
    case = Case("guided", "generator", CASES["guided"].settings)
    with pytest.raises(PagodaError, match=r"clip_loss\.weight = 2 needs a generator .* captions"):
        Guided(section(case, **{"clip_loss.weight": 2.0}), given(case))
    with pytest.raises(PagodaError, match=r"estimator\.kind = clip needs a generator .* captions"):
        Guided(section(case, **PRODUCTS), given(case))
    own = {"distill.method": "guided", "grow.method": "guided", "invert.guidance_max": 4.0}
    tree = tiny_tree(**own)
    tree["grow"]["estimator"] = {"kind": "clip"}
    with pytest.raises(PagodaError, match=r"grow\.estimator\.kind = 'clip'; it must be image un"):
        parse(with_derived(tree))
    tree = tiny_tree(**own)
    tree["distill"]["clip_loss"] = {"weight": 1.0}
    with pytest.raises(
        PagodaError, match=r"distill\.clip_loss\.weight = 1\.0; it must be 0 unless"
    ):
        parse(with_derived(tree))


@pytest.mark.longer
def test_it_is_counted() -> None:
    own = {"distill.method": "guided", "grow.method": "guided", "invert.guidance_max": 4.0,
           "text.captions": "short"}  # fmt: skip
    found = []
    for changed in ({}, {"clip_loss": {"weight": 1.0}}, {"estimator": {"kind": "clip"}}):
        tree = tiny_tree(**own)
        tree["distill"] |= changed
        found.append(Untrained(parse(with_derived(tree)), 10, 200).training("distill"))
    assert found[0] < found[1] < 2 * found[0] > found[2] != found[0]
