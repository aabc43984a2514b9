"""The projected discriminator: real architectures of timm, untrained weights."""

from __future__ import annotations

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.errors import PagodaError
from pagoda.networks import packaged
from pagoda.networks.backbones import Backbone, FrozenConv, ProjectedFeatures
from pagoda.networks.discriminators import PatchHead, ProjectedDiscriminator

SMALL = ["test_vit", "test_efficientnet"]  # timm's own networks for tests
PAPER = ["deit_base_distilled_patch16_224", "tf_efficientnet_lite0"]


def discriminator(seed: int = 3) -> ProjectedDiscriminator:
    torch.manual_seed(1)
    return ProjectedDiscriminator(SMALL, "random", 5, seed)


@pytest.mark.longer
@pytest.mark.parametrize(("side", "patches"), [(64, 4), (256, 5)])
def test_shapes_of_the_papers_networks(side: int, patches: int) -> None:
    """Images below 224 become 224; others are seen as they are. Shapes alone: no arithmetic."""
    with torch.device("meta"):
        vit, cnn = (Backbone(name, "random") for name in PAPER)
        x = torch.zeros(2, 3, side, side)
    seen = 224 if side < 256 else side
    assert vit.taps == [2, 5, 8, 11] and vit.channels == [768] * 4
    assert cnn.channels == [24, 40, 112, 320]
    assert [tuple(m.shape[1:]) for m in vit(x)] == [(768, seen // 16, seen // 16)] * 4
    sides = [seen // s for s in (4, 8, 16, 32)]
    assert [m.shape[-1] for m in cnn(x)] == sides
    # What follows depends on channels and sides alone.
    heads = [PatchHead([c, *rest], 7) for c, rest in zip((64, 64, 128, 256), RESTS, strict=True)]
    labels = torch.zeros(2, dtype=torch.long)
    for head, c, s in zip(heads, (64, 64, 128, 256), sides, strict=True):
        with torch.no_grad():
            assert head(torch.randn(2, c, 2 * s, 2 * s), labels).shape == (2, patches**2)


RESTS = [[64, 128, 256, 512], [128, 256, 512], [256, 512], [512]]


def test_the_heads_of_the_discriminator_are_the_published_ones() -> None:
    for i, head in enumerate(discriminator().heads):
        assert isinstance(head, PatchHead)
        convs = [m for m in head.blocks.modules() if isinstance(m, nn.Conv2d)]
        assert [c.out_channels for c in convs] == RESTS[i % 4]
        assert all(c.kernel_size == (4, 4) and c.stride == (2, 2) for c in convs)
        assert head.last.out_channels == 64 and head.classes.shape == (5, 320)


@pytest.mark.parametrize(("given", "side"), [(32, 224), (16, 64), (96, 64)])
def test_backbone_maps_are_the_stages_of_the_network(given: int, side: int) -> None:
    """With published weights and normalisations, which the backbone folds into convolutions."""
    backbone = Backbone("tf_efficientnet_lite0", "pretrained", side)
    network: Any = packaged.create("tf_efficientnet_lite0")
    x = torch.rand(1, 3, given, given) * 2 - 1
    h = x if given > side else F.interpolate(x, (side, side), mode="bilinear")
    h = network.bn1(network.conv_stem(h))  # mean and deviation 0.5: unchanged
    assert not [m for m in backbone.frozen.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for made, (a, b) in zip(backbone(x), pairwise([0, 2, 3, 5, 7]), strict=True):
            h = network.blocks[a:b](h)
            torch.testing.assert_close(made, h, rtol=1e-4, atol=1e-5 * h.abs().max().item())


def test_gradients_on_the_cpu_are_those_of_float32() -> None:
    backbone = Backbone("tf_efficientnet_lite0", "pretrained", 64)
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    found: list[Tensor] = []
    for narrow in (False, True):
        leaf = x.clone().requires_grad_(True)
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            total = torch.stack([m.square().mean() for m in backbone(leaf)]).sum()
            assert narrow == (backbone(x)[0].dtype == torch.bfloat16)
        found += torch.autograd.grad(total, leaf)
    assert found[0].abs().max() > 0 and torch.equal(*found)


@pytest.mark.parametrize(("name", "side"), [("test_vit", 160), ("test_vit", 256),
                                            ("deit_tiny_distilled_patch16_224", 256)])  # fmt: skip
def test_position_embeddings_are_resized_bilinearly(name: str, side: int) -> None:
    """MiDaS' forward_flex, which the official discriminator uses: patches plus a bilinear grid."""
    backbone = Backbone(name, "random")
    network: Any = backbone.frozen
    plain: Any = timm.create_model(name)
    plain.load_state_dict(network.state_dict())
    prefix, old = plain.num_prefix_tokens, plain.patch_embed.grid_size[0]
    x = torch.rand(1, 3, side, side) * 2 - 1
    seen = side if side >= 256 else 224
    maps = backbone(x)
    x = ((x + 1) / 2 - backbone._mean) / backbone._std
    x = x if side == seen else F.interpolate(x, (seen, seen), mode="bilinear")
    patches = plain.patch_embed.proj(x)
    grid = plain.pos_embed[:, prefix:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, patches.shape[-2:], mode="bilinear", align_corners=False)
    first = [plain.cls_token, plain.dist_token][:prefix] if prefix == 2 else [plain.cls_token]
    h = torch.cat(first, 1) + plain.pos_embed[:, :prefix]
    h = torch.cat([h, (patches + grid).flatten(2).transpose(1, 2)], 1)
    h = plain.norm_pre(h)
    with torch.no_grad():
        for i, block in enumerate(plain.eval().blocks[: backbone.taps[-1] + 1]):
            h = block(h)
            if i in backbone.taps:
                made = maps[backbone.taps.index(i)].flatten(2).transpose(1, 2)
                torch.testing.assert_close(made, h[:, prefix:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("side", "patches", "widths"),
    [
        (64, 1, [64, 64, 128, 256]), (96, 9, [64, 64, 128, 256]),
        pytest.param(160, 4, [64, 64, 128, 256, 512], marks=pytest.mark.longer),
        pytest.param(224, 16, [64, 64, 128, 256, 512], marks=pytest.mark.longer),
        pytest.param(512, 25, [64, 64, 128, 256, 512, 512], marks=pytest.mark.longer),
    ],
)  # fmt: skip
def test_heads_follow_the_side_of_the_input(side: int, patches: int, widths: list[int]) -> None:
    """Every head halves its map to the last one's side, and so has as many patches."""
    with torch.device("meta"):
        networks = "tf_efficientnet_lite0", "test_vit"
        made = ProjectedDiscriminator(list(networks), "random", 5, 0, side)
        x, labels = torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.long)
        assert made(x, labels).shape == (2, 2 * 4 * patches)
    for i, head in enumerate(made.heads):
        assert isinstance(head, PatchHead)
        convs = [m for m in head.blocks.modules() if isinstance(m, nn.Conv2d)]
        assert [c.in_channels for c in [*convs, head.last]] == widths[i % 4 :]
    features = made.features(torch.zeros(2, 3, 16, 16, device="meta"))
    assert [m.shape[-1] for m in features] == [side // 2, side // 4, side // 8, side // 16] * 2


def test_mixing_is_the_formula() -> None:
    """CCM and CSM with torch's own layers, weights copied."""
    made = ProjectedFeatures("test_efficientnet", "random", seed=9, width=8)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    maps = made.backbone(x)
    expected: list[Tensor] = []
    for i in (3, 2, 1, 0):
        h = stock(made.ccm[i])(maps[i])
        assert h.shape[1] == 8 << i
        if expected:
            h = h + expected[0]
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        expected.insert(0, stock(made.csm[i])(up(h)))
    for a, b in zip(made(x), expected, strict=True):
        torch.testing.assert_close(a, b)
    assert [m.shape[1] for m in expected] == made.channels == [8, 8, 16, 32]
    assert [m.shape[-1] for m in expected] == [112, 56, 28, 14]


def stock(conv: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, FrozenConv)
    out, inner, kernel, _ = conv.weight.shape
    layer = nn.Conv2d(inner, out, kernel)
    layer.load_state_dict(conv.state_dict())
    return layer


def test_frozen_convolutions_are_those_of_torch() -> None:
    rng = torch.Generator().manual_seed(0)
    for transposed in (False, True):
        ours = FrozenConv(16, 32, 4, rng, stride=2, padding=1, transposed=transposed)
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        theirs = kind(16, 32, 4, stride=2, padding=1)
        for a, b in zip(ours.buffers(), theirs.parameters(), strict=True):
            assert a.shape == b.shape and a.mean().abs() < 0.5 * b.std()
            assert a.abs().max().item() == pytest.approx(b.abs().max().item(), rel=0.2)
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.3)


def test_token_maps_come_at_four_scales() -> None:
    made = ProjectedFeatures("test_vit", "random", seed=0)
    assert [m.shape[-1] for m in made(torch.rand(1, 3, 16, 16))] == [112, 56, 28, 14]


@pytest.mark.longer
def test_projections_are_a_function_of_the_seed_and_restored_from_a_checkpoint() -> None:
    x, labels = torch.rand(3, 3, 16, 16) * 2 - 1, torch.tensor([0, 1, 2])
    first, again, other = discriminator(3), discriminator(3), discriminator(4)
    buffers = [k for k in first.state_dict() if ".ccm." in k or ".csm." in k or "reassemble" in k]
    assert len(buffers) == 2 * (2 * 8 + 7)
    for key in buffers:
        assert torch.equal(first.state_dict()[key], again.state_dict()[key])
        assert not torch.equal(first.state_dict()[key], other.state_dict()[key])
    other.load_state_dict(first.state_dict())
    for network in (first, other):
        network.eval()
    assert torch.equal(first(x, labels), other(x, labels))


def test_nothing_frozen_trains_or_is_saved() -> None:
    network = discriminator().requires_grad_(True)  # as the training step does
    hidden = [m._frozen[0] for m in network.modules() if isinstance(m, Backbone)]
    frozen = [p for part in hidden for p in part.parameters()]
    before = [p.clone() for p in frozen]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x = (torch.rand(4, 3, 16, 16) * 2 - 1).requires_grad_(True)
    network(x, torch.arange(4)).square().mean().backward()
    optimizer.step()
    assert x.grad is not None and (x.grad.flatten(1).abs().sum(1) > 0).all()
    for name, parameter in network.named_parameters():
        assert name.startswith("heads."), name
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    assert all(torch.equal(a, b) for a, b in zip(frozen, before, strict=True))
    assert not any("backbone" in key for key in network.state_dict())
    network.train()
    assert len(hidden) == 2 and not any(m.training for part in hidden for m in part.modules())


def test_types_reach_the_hidden_network() -> None:
    network = copy.deepcopy(discriminator()).double().eval()
    x = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    assert all(m.dtype == torch.float64 for m in network.features(x))
    assert network(x, torch.tensor([0, 1])).shape == (2, 2 * 4 * 16)


def test_the_label_matters_to_its_own_row_alone() -> None:
    network = discriminator().eval()
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    a, b = (network(x, torch.tensor([0, label, 2])) for label in (1, 4))
    assert torch.equal(a[[0, 2]], b[[0, 2]]) and (a[1] - b[1]).abs().min() > 0


def test_a_head_starts_from_given_class_embeddings() -> None:
    table = torch.randn(7, 5)
    head = PatchHead([8, 8], 7, classes=table)
    assert torch.equal(head.classes, table)
    assert head(torch.randn(2, 8, 8, 8), torch.tensor([0, 6])).shape == (2, 1)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_folder(tmp_path: Path, suffix: str) -> None:
    source = timm.create_model("test_vit", pretrained=False)
    file = tmp_path / f"test_vit{suffix}"
    if suffix == ".pth":
        torch.save({"model": source.state_dict()}, file)
    else:
        safetensors.torch.save_file(source.state_dict(), file)
    loaded = Backbone("test_vit", str(tmp_path))._frozen[0].state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in source.state_dict().items())


def test_weights_that_cannot_be_had_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "test_vit.pth").write_bytes(b"no weights")
    (tmp_path / "test_efficientnet.safetensors").write_bytes(
        safetensors.torch.save({"a": torch.zeros(1)})
    )
    for name, weights, line in (
        ("test_vit", "pretrained", "neither in the cache nor to be downloaded; put test_vit"),
        ("test_vit2", str(tmp_path), "holds no test_vit2.safetensors"),
        ("test_vit", str(tmp_path), "cannot be read as weights"),
        ("test_efficientnet", str(tmp_path), "are not those of test_efficientnet"),
        ("no_such_network", "random", "is no timm model"),
    ):
        with pytest.raises(PagodaError, match=line) as caught:
            Backbone(name, weights)
        assert "\n" not in str(caught.value)
