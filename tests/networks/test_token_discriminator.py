"""The discriminator of tokens: shapes, closed forms of its projection, captions and weights."""

from __future__ import annotations

import math

import pytest
import torch

from pagoda.losses.adversarial import discriminator_losses, generator_loss
from pagoda.networks.token_discriminator import CaptionPath, TokenDiscriminator, TokenHead


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
