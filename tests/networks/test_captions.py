"""Captions for classes: a table, attention that starts asleep, and the CLIP that reads them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from pagoda.errors import PagodaError
from pagoda.losses.contrastive import contrastive_loss
from pagoda.networks.captions import CaptionStates, CaptionTable, CrossAttention
from pagoda.networks.clip import Clip, ClipSpec, Tokenizer, build_clip, learn_tokenizer
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import generator_from_teacher, grow
from pagoda.networks.layers import Told, zero
from pagoda.networks.unet import NO_CLASS, UNetSpec
from pagoda.pipeline.stages.teacher import told

SPEC = UNetSpec(8, 8, (1, 2), 1, (4,), 8, 0.0, 3, 1.0)
TEXTS = ["a red ring", "a blue star", "an olive disc", "a sky-blue plus sign"]


def states(n: int = 3, length: int = 5, width: int = 6, pooled: int = 4) -> CaptionStates:
    torch.manual_seed(1)
    there = torch.arange(length)[None] < torch.arange(2, n + 2)[:, None]
    return CaptionStates(torch.randn(n, length, width), torch.randn(n, pooled), there)


def awake(network: nn.Module) -> None:
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


def of_captions(own: CaptionStates) -> Denoiser:
    torch.manual_seed(4)
    network = told(Denoiser(SPEC, 0.5), own)
    awake(network)
    return network


def crossings(network: nn.Module) -> list[CrossAttention]:
    return [m for m in network.modules() if isinstance(m, CrossAttention)]


def test_with_its_projections_at_zero_it_is_the_network_of_classes() -> None:
    """Whose embeddings of classes are the projected pooled ones of the captions."""
    own = states()
    text = of_captions(own)
    for crossing in crossings(text):
        zero(crossing.proj)
    plain = Denoiser(SPEC, 0.5)
    table, label = text.net.trunk.label, plain.net.trunk.label
    assert isinstance(table, CaptionTable) and isinstance(label, nn.Embedding)
    shared = {k: v for k, v in text.state_dict().items() if k in plain.state_dict()}
    plain.load_state_dict(shared | {"net.trunk.label.weight": table.project(own.pooled)})
    x, sigma = torch.randn(4, 3, 8, 8), torch.tensor([0.1, 1.0, 5.0, 60.0])
    labels = torch.tensor([0, 2, NO_CLASS, 1])
    torch.testing.assert_close(text(x, sigma, labels), plain(x, sigma, labels))
    torch.testing.assert_close(text(x, sigma, None), plain(x, sigma, None))


def test_a_fresh_network_starts_with_its_projections_at_zero() -> None:
    fresh = crossings(told(Denoiser(SPEC, 0.5), states()))
    assert fresh and not any(p.any() for c in fresh for p in c.proj.parameters())


def test_padding_and_the_tokens_of_no_caption_are_not_seen() -> None:
    own = states()
    spoiled = replace(own, tokens=own.tokens.masked_fill(~own.there[..., None], 99.0))
    one, two = of_captions(own), of_captions(spoiled)
    x, sigma = torch.randn(3, 3, 8, 8), torch.ones(3)
    labels = torch.arange(3)
    assert torch.equal(one(x, sigma, labels), two(x, sigma, labels))
    other = of_captions(replace(own, tokens=own.tokens + 1))
    assert not torch.allclose(one(x, sigma, labels), other(x, sigma, labels))
    none = torch.full((3,), NO_CLASS)
    assert torch.equal(one(x, sigma, none), other(x, sigma, none))
    assert torch.equal(one(x, sigma, none), one(x, sigma, None))


def test_attention_is_its_closed_form() -> None:
    torch.manual_seed(3)
    crossing = CrossAttention(8, 8, 6)
    awake(crossing)
    x, own = torch.randn(2, 8, 3, 3), states(2)
    made = crossing(x, Told(torch.zeros(2, 1), own.tokens, own.there, torch.tensor([True, True])))
    q = crossing.q(crossing.norm(x)).flatten(2).mT
    k, v = crossing.kv(own.tokens).split(8, -1)
    scores = (q @ k.mT / math.sqrt(8)).masked_fill(~own.there[:, None], -torch.inf)
    out = (scores.softmax(-1) @ v).mT.reshape(x.shape)
    torch.testing.assert_close(made, x + crossing.proj(out))


def test_the_table_is_weights_without_gradients_and_goes_along() -> None:
    """Into the generator and its growth, by loading, and to other prompts by filling it."""
    own = states()
    teacher = of_captions(own)
    generator = grow(generator_from_teacher(teacher, sigma_max=80.0, output="raw"), channels=8,
                     blocks=1)  # fmt: skip
    for network in (teacher, generator):
        table = next(m for m in network.modules() if isinstance(m, CaptionTable))
        assert torch.equal(table.tokens, own.tokens) and torch.equal(table.there, own.there)
        assert {name for name, _ in table.named_parameters()} == {"project.weight", "project.bias"}
    z, card = torch.randn(2, 3, 8, 8), generator.card()
    assert card["unet"]["captions"] == (5, 6, 4) and "captions" not in SPEC.to_card()
    assert UNetSpec.from_card(teacher.card()["unet"]) == teacher.spec
    before = generator(z, torch.tensor([2, 0]))
    rows = torch.tensor([2, 2, 0])
    table.fill(CaptionStates(own.tokens[rows], own.pooled[rows], own.there[rows]))
    torch.testing.assert_close(generator(z, torch.tensor([1, 2])), before)
    with pytest.raises(PagodaError, match="encode them by its own text encoder"):
        table.fill(states(length=6))


def test_the_loss_is_that_of_open_clip() -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    x, y = (nn.functional.normalize(torch.randn(7, 5), dim=-1).requires_grad_() for _ in "xy")
    scale = torch.tensor(9.0)
    ours, theirs = contrastive_loss(x, y, scale), open_clip.loss.ClipLoss()(x, y, scale)
    torch.testing.assert_close(ours, theirs)
    grads = [torch.autograd.grad(loss, (x, y)) for loss in (ours, theirs)]
    torch.testing.assert_close(*grads)
    same = torch.ones(7, 5) / math.sqrt(5)
    assert contrastive_loss(same, same, scale).item() == pytest.approx(math.log(7))
    assert contrastive_loss(x[:1], y[:1], scale) == 0


def clip(context: int = 10) -> Clip:
    pytest.importorskip("open_clip")
    torch.manual_seed(0)
    tokenizer = Tokenizer(learn_tokenizer(TEXTS, 300), context)
    return Clip(ClipSpec(8, 4, 16, 1, 8, context, tokenizer.size), tokenizer).eval()


def test_a_caption_too_long_is_cut_and_says_where() -> None:
    tokenizer = Tokenizer(learn_tokenizer(TEXTS, 300), 4)
    rows, cut = tokenizer(["a", "a red ring a red ring"])
    assert rows.shape == (2, 4) and len(cut) == 1 and "\n" not in cut[0]
    (line,) = cut
    assert line.startswith("caption 2 has ") and "reads 4: it is cut after '... a red'" in line
    whole = Tokenizer(tokenizer.text, 40)
    assert whole(["a red ring a red ring"])[1] == () and whole([""])[0][0, :3].tolist() == [1, 2, 0]


def test_any_text_has_tokens_and_comes_back() -> None:
    own = Tokenizer(learn_tokenizer(TEXTS, 300), 60)
    for text in ("a red ring", "a zebra, größer!", "紅"):
        ids = own(text.split("|"))[0][0]
        assert own._own.decode(ids[own.there(ids)].tolist()).strip() == text


def test_states_are_those_of_the_encoder_whatever_stands_beside() -> None:
    network = clip()
    read = network.read(TEXTS)
    assert read.shape == (10, 16, 8) and read.cut == ()
    ids = network.tokenizer(TEXTS)[0]
    pooled = nn.functional.normalize(network.clip.encode_text(ids), dim=-1) * math.sqrt(8)
    torch.testing.assert_close(read.pooled, pooled.detach())
    # CLIP's own pooled embedding is the projection of the state at the end of the caption.
    last = read.there.sum(1) - 1
    at_end = read.tokens[torch.arange(4), last] @ network.clip.text_projection
    torch.testing.assert_close(nn.functional.normalize(at_end, dim=-1) * math.sqrt(8), pooled)
    alone = network.read(TEXTS[2:3])
    assert torch.equal(alone.tokens[0], read.tokens[2])
    assert torch.equal(alone.pooled[0], read.pooled[2])


def test_a_card_makes_the_same_network() -> None:
    network = clip()
    again = build_clip(network.card())
    again.load_state_dict(network.state_dict())
    x, ids = torch.rand(2, 3, 16, 16) * 2 - 1, network.tokenizer(TEXTS[:2])[0]
    for one, two in zip(network(x, ids), again.eval()(x, ids), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(PagodaError, match="holds no tokenizer"):
        Tokenizer("{}", 4)
