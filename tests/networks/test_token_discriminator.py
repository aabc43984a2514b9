"""The discriminator of tokens: shapes, closed forms of its projection, captions and weights."""

from __future__ import annotations

import math

import pytest
import torch

from pagoda.losses.adversarial import discriminator_losses, generator_loss
from pagoda.networks.captions import CaptionStates, CaptionTable
from pagoda.networks.token_discriminator import (
    CaptionPath,
    TableTokens,
    TokenDiscriminator,
    TokenHead,
)


def made(weighted: bool = True, name: str = "test_efficientnet") -> TokenDiscriminator:
    torch.manual_seed(0)
    return TokenDiscriminator([name], "random", 5, 64, weighted=weighted).eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
def test_every_token_of_every_map_has_a_logit(name: str) -> None:
    network = made(name=name)
    x, y, omega = torch.rand(3, 3, 16, 16) * 2 - 1, torch.tensor([0, 1, 4]), torch.ones(3)
    tokens = sum(m.shape[2] * m.shape[3] for m in network.features(x))
    logits = network(x, y, omega)
    assert logits.shape == (3, tokens) and tokens > 16
    assert not [key for key in network.state_dict() if "_frozen" in key]
    alone = torch.cat([network(x[i : i + 1], y[i : i + 1], omega[:1]) for i in range(3)])
    torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-5)


def test_a_logit_is_the_product_of_token_and_caption() -> None:
    torch.manual_seed(0)
    head = TokenHead(8, 9, weighted=False).eval()
    m, caption = torch.randn(2, 8, 3, 3), torch.randn(2, 64)
    logits = head(m, caption, None)
    assert logits.shape == (2, 9)
    torch.testing.assert_close(head(m, 3 * caption, None), 3 * logits)
    t = m.flatten(2) + m.mean((2, 3))[:, :, None]
    a = torch.nn.functional.leaky_relu(head.first_norm(head.first(t)), 0.2)
    near = torch.nn.functional.leaky_relu(head.near_norm(head.near(a)), 0.2)
    b = head.last((a + near) / math.sqrt(2))
    expected = torch.stack([b[i].T @ caption[i] for i in range(2)]) / 8
    torch.testing.assert_close(logits, expected)


def test_a_class_is_a_caption_of_one_token_and_padding_says_nothing() -> None:
    torch.manual_seed(0)
    path = CaptionPath(7, 2, weighted=False).eval()
    classes = torch.tensor([2, 5])
    one = path(classes, None)
    torch.testing.assert_close(path(classes[:, None], None), one)
    padded = torch.tensor([[2, -1, -1], [5, -1, -1]])
    torch.testing.assert_close(path(padded, None), one)
    order = path(torch.tensor([[2, 5], [5, 2]]), None)
    assert (order[0] - order[1]).abs().max() > 1e-4  # a caption is no bag of words


def test_the_weight_reaches_image_and_caption() -> None:
    network = made()
    x, y = torch.rand(2, 3, 16, 16) * 2 - 1, torch.tensor([0, 1])
    low, high = torch.ones(2), torch.full((2,), 4.0)
    caption = network.caption(y, low)
    assert (caption - network.caption(y, high)).abs().max() > 1e-3
    for m, head in zip(network.features(x), network.heads, strict=True):
        assert (head(m, caption, low) - head(m, caption, high)).abs().max() > 1e-4
    plain = made(weighted=False)
    assert not [key for key in plain.state_dict() if "weight_in" in key]
    assert plain(x, y).shape == network(x, y, low).shape


def test_the_hinge_is_a_mean_over_all_tokens() -> None:
    real, fake = torch.tensor([[2.0, 0.0], [0.5, 1.0]]), torch.tensor([[-2.0, 0.0], [1.0, -0.5]])
    losses = discriminator_losses("hinge", real, fake)
    assert losses[0].item() == pytest.approx((0 + 1 + 0.5 + 0) / 4)
    assert losses[1].item() == pytest.approx((0 + 1 + 2 + 0.5) / 4)
    assert generator_loss("hinge", fake).item() == pytest.approx((2 + 0 - 1 + 0.5) / 4)


def test_the_packaged_network_at_side_64() -> None:
    network = TokenDiscriminator(["tf_efficientnet_lite0"], "pretrained", 3, 64, weighted=True)
    logits = network(torch.rand(2, 3, 32, 32) * 2 - 1, torch.tensor([0, 2]), torch.ones(2))
    assert logits.shape == (2, 16 * 16 + 8 * 8 + 4 * 4 + 2 * 2) and logits.isfinite().all()


ROWS, LENGTH = 4, 3


def table_of(path: CaptionPath) -> TableTokens:
    assert isinstance(path.token, TableTokens)
    return path.token


def table(tokens: torch.Tensor, pooled: torch.Tensor, there: torch.Tensor) -> CaptionTable:
    own = CaptionStates(tokens, pooled, there)
    made = CaptionTable(len(tokens), own.shape, 8)
    made.fill(own)
    return made


def random_table() -> CaptionTable:
    """Captions of 3, 2, 1 and 3 tokens."""
    rng = torch.Generator().manual_seed(3)
    there = torch.arange(LENGTH) < torch.tensor([3, 2, 1, 3])[:, None]
    tokens = torch.randn(ROWS, LENGTH, 6, generator=rng)
    return table(tokens, torch.randn(ROWS, 5, generator=rng), there)


@pytest.mark.parametrize("part", ["tokens", "pooled"])
def test_captions_whose_embeddings_are_one_hot_are_classes(part: str) -> None:
    torch.manual_seed(0)
    one_hot, none = torch.eye(ROWS), torch.zeros(ROWS, ROWS)
    tokens, pooled = (one_hot, none) if part == "tokens" else (none, one_hot)
    rows = table(tokens[:, None], pooled, torch.ones(ROWS, 1, dtype=torch.bool))
    told = CaptionPath(ROWS, 1, weighted=True, table=rows).eval()
    classes = CaptionPath(ROWS, 1, weighted=True).eval()
    state = told.state_dict()
    weight = state.pop("token.token.weight" if part == "tokens" else "token.whole.weight")
    position = torch.cat([state.pop("position"), torch.zeros(127, 64)])
    rest = {k: v for k, v in state.items() if not k.startswith("token.")}
    classes.load_state_dict(rest | {"token.weight": weight.T, "position": position})
    y, omega = torch.tensor([2, 0, 3]), torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(told(y, omega), classes(y, omega))


def test_a_caption_is_the_mean_of_its_tokens_with_the_pooled_embedding_on_each() -> None:
    torch.manual_seed(0)
    rows = random_table()
    path = CaptionPath(ROWS, 0, weighted=False, table=rows).eval()
    found = path(torch.arange(ROWS), None)
    embedding = table_of(path)
    w, v = embedding.token.weight, embedding.whole.weight
    for i, length in enumerate((3, 2, 1, 3)):
        each = [rows.tokens[i, k] @ w.T + rows.pooled[i] @ v.T + path.position[k]
                for k in range(length)]  # fmt: skip
        torch.testing.assert_close(found[i], path.out(sum(each) / length))


def told(rows: CaptionTable) -> TokenDiscriminator:
    torch.manual_seed(0)
    return TokenDiscriminator(
        ["test_efficientnet"], "random", ROWS, 64, weighted=True, table=rows
    ).eval()


def test_the_logits_go_with_their_captions() -> None:
    rows, order = random_table(), torch.tensor([2, 0, 3, 1])
    network = told(rows)
    x = (torch.rand(1, 3, 16, 16) * 2 - 1).expand(ROWS, -1, -1, -1)
    y, omega = torch.arange(ROWS), torch.full((ROWS,), 2.0)
    logits = network(x, y, omega)
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    torch.testing.assert_close(network(x, y[order], omega), logits[order])
    turned = told(table(rows.tokens[order], rows.pooled[order], rows.there[order]))
    torch.testing.assert_close(turned(x, y, omega), logits[order])


def test_of_a_caption_tokens_and_pooled_embedding_count_and_padding_does_not() -> None:
    rows = random_table()
    network, y, omega = told(rows), torch.tensor([1]), torch.full((1,), 2.0)
    x = torch.rand(1, 3, 16, 16) * 2 - 1
    logits = network(x, y, omega)
    table_of(network.caption).tokens[1, 2:] = 99.0
    torch.testing.assert_close(network(x, y, omega), logits)
    for name in ("tokens", "pooled"):
        changed = told(rows)
        getattr(table_of(changed.caption), name)[1] += 1.0
        assert (changed(x, y, omega) - logits).abs().max() > 1e-3
    low = network.caption(y, torch.ones(1))
    assert (low - network.caption(y, omega)).abs().max() > 1e-3  # the weight


def test_the_table_is_a_copy_without_gradients_and_no_part_of_the_state() -> None:
    rows = random_table()
    network = told(rows)
    network(torch.zeros(2, 3, 16, 16), torch.tensor([0, 3]), torch.ones(2)).sum().backward()
    trained = {name for name, p in network.caption.named_parameters() if p.grad is not None}
    assert {"token.token.weight", "token.whole.weight", "position"} <= trained
    assert not [key for key in network.state_dict() if key.endswith(("pooled", "there"))]
    rows.tokens.zero_()
    assert table_of(network.caption).tokens.abs().max() > 0
