"""Autoencoders: TAESD's shape against diffusers' own, its classes by name, codes of unit size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pagoda.errors import PagodaError
from pagoda.networks.autoencoder import (
    Autoencoder,
    AutoencoderSpec,
    card_of,
    conv_autoencoder,
    diffusers_autoencoder,
    load_autoencoder,
)
from pagoda.weights.autoencoders import read_diffusers

TINY: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {
        "block_out_channels": [4, 8], "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2, "latent_channels": 4, "norm_num_groups": 2,
    },
    "AutoencoderTiny": {
        "encoder_block_out_channels": [8, 8], "decoder_block_out_channels": [8, 8],
        "num_encoder_blocks": [1, 2], "num_decoder_blocks": [2, 1],
    },
    "AutoencoderDC": {
        "latent_channels": 4, "encoder_block_out_channels": [8, 8],
        "encoder_block_types": "ResBlock", "decoder_block_types": "ResBlock",
        "decoder_block_out_channels": [8, 8],
        "encoder_layers_per_block": [1, 1], "decoder_layers_per_block": [1, 1],
    },
}  # fmt: skip
NAMES = sorted(TINY)


def images(n: int = 2, side: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_it_is_taesd_weight_by_weight() -> None:
    """Parameters as published, and diffusers' AutoencoderTiny of the same weights to the bit."""
    diffusers = pytest.importorskip("diffusers")
    ours = conv_autoencoder(AutoencoderSpec(8, 4, 64, 3)).network.eval()
    sizes = [sum(p.numel() for p in m.parameters()) for m in (ours.encoder, ours.decoder)]
    assert sizes == [1_222_532, 1_222_531]
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderTiny().eval()
    for mine, other in ((ours.encoder, theirs.encoder), (ours.decoder, theirs.decoder)):
        pairs = zip(mine.state_dict(), other.state_dict().values(), strict=True)
        mine.load_state_dict(dict(pairs))
    with torch.no_grad():
        z = theirs.encode(images(side=32)).latents
        assert torch.equal(ours.moments(images(side=32))[0], z)
        assert torch.equal(ours.images(z), theirs.decode(z).sample)


@pytest.mark.parametrize("name", NAMES)
def test_classes_of_diffusers_are_read_from_a_folder_by_name(name: str, tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = getattr(diffusers, name)(**TINY[name]).eval()
    theirs.save_pretrained(tmp_path)
    weights, card = read_diffusers(tmp_path)
    ours = load_autoencoder(weights, json.loads(json.dumps(card)))
    assert (ours.factor, ours.channels) == (2, 4)
    ours.double(), theirs.double()  # what float32 rounds depends on the processor
    with torch.no_grad():
        codes = ours.encode(images().double())
        made = theirs.encode(images().double())
        z = made.latent_dist.mean if hasattr(made, "latent_dist") else made[0]
        assert codes.shape == (2, 4, 8, 8) and torch.allclose(codes, z)
        assert torch.allclose(ours.decode(codes), theirs.decode(z).sample)


def test_a_folder_that_is_no_autoencoder_is_refused_in_one_line(tmp_path: Path) -> None:
    def refused(words: str) -> None:
        with pytest.raises(PagodaError, match=words) as caught:
            read_diffusers(tmp_path)
        assert "\n" not in str(caught.value)

    refused("neither an artifact's manifest nor a config.json")
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    refused("'UNet2DModel'; autoencoders are AutoencoderKL")
    pytest.importorskip("diffusers")
    config = {"_class_name": "AutoencoderKL", **TINY["AutoencoderKL"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    refused("lacks diffusion_pytorch_model.safetensors")
    save_file({"odd": torch.zeros(1)}, tmp_path / "diffusion_pytorch_model.safetensors")
    refused("diffusion_pytorch_model.safetensors: ")
    (tmp_path / "config.json").write_text(json.dumps(config | {"norm_num_groups": 3}))
    refused("the configuration is none of AutoencoderKL")


@pytest.mark.parametrize("kl", [False, True])
def test_codes_have_the_size_that_the_card_says_and_decode_back(kl: bool) -> None:
    torch.manual_seed(0)
    plain = conv_autoencoder(AutoencoderSpec(4, 3, 8, 1, kl))
    z = plain.network.moments(images(64))[0]
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3), correction=0)
    card = card_of(plain) | {"mean": mean.tolist(), "std": std.tolist()}
    network = load_autoencoder(plain.state_dict(), json.loads(json.dumps(card)))
    codes = network.encode(images(64))
    torch.testing.assert_close(codes.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(codes.std((0, 2, 3), correction=0), torch.full((3,), 0.5))
    back = network.decode(codes)
    torch.testing.assert_close(back, plain.network.images(z), atol=1e-5, rtol=0)


def test_without_statistics_codes_are_the_latents() -> None:
    plain = conv_autoencoder(AutoencoderSpec(2, 2, 8, 1))
    assert torch.equal(plain.encode(images()), plain.network.moments(images())[0])


def test_a_side_that_the_factor_does_not_divide_is_refused() -> None:
    with pytest.raises(PagodaError, match=r"images of 18 pixels a side .* multiples of 4"):
        conv_autoencoder(AutoencoderSpec(4, 2, 8, 1)).encode(images(side=18))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"factor": 4}, "its card says factor 4 and 2 channels, its network has 2 and 2"),
        ({"mean": [0.0], "std": [1.0]}, "not a positive number a channel"),
        ({"mean": [0.0, 0.0], "std": [1.0, 0.0]}, "not a positive number a channel"),
    ],
)
def test_a_card_that_contradicts_its_network_is_refused(change: dict[str, Any], words: str) -> None:
    made = conv_autoencoder(AutoencoderSpec(2, 2, 8, 1))
    with pytest.raises(PagodaError, match=words):
        load_autoencoder(made.state_dict(), card_of(made) | change)


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(PagodaError, match="'VQModel'; it must be one of"):
        diffusers_autoencoder("VQModel", {})


def test_the_decoder_alone_is_counted_as_the_decoder() -> None:
    made = conv_autoencoder(AutoencoderSpec(2, 2, 8, 1))
    assert isinstance(made, Autoencoder) and made.decoder is made.network.decoder
