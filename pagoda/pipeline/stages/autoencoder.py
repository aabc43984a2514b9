"""Before stage 1, in latent space: train the autoencoder whose codes are modelled, or take one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda import artifacts, distributed
from pagoda.artifacts import MANIFEST, Artifact
from pagoda.config import NO_WEIGHTS, Config
from pagoda.config.paths import Paths
from pagoda.config.revision import package_revision
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.methods.autoencoder import Autoencoder as Training
from pagoda.methods.autoencoder import AutoencoderConfig
from pagoda.networks.autoencoder import (
    Autoencoder,
    AutoencoderSpec,
    card_of,
    conv_autoencoder,
    load_autoencoder,
)
from pagoda.pipeline.stages.decoder import CALL, encoded
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.made import identity, open_made
from pagoda.pipeline.stages.train import check_device, image_batches, train_stage
from pagoda.training.history import History
from pagoda.training.method import Given
from pagoda.training.sharding import place
from pagoda.weights.autoencoders import read_diffusers

_MOMENTS = 2048  # images of each resolution that mean and deviation are taken over


def run(config: Config) -> None:
    """Train or take the autoencoder, at every resolution, and write its artifact."""
    section, device = config.autoencoder, pick_device()
    data = {f"data/{r}": open_made(config, f"data/{r}") for r in config.resolutions}

    def tested(weights: dict[str, Tensor], card: dict[str, Any]) -> dict[str, Any]:
        return statistics(load_autoencoder(weights, card).to(device), list(data.values()), device)

    if section.imported != NO_WEIGHTS:
        _take(config, data, tested)
        return
    check_device("autoencoder", section.optim, device)
    torch.manual_seed(config.seed)
    network = untrained(section)
    card = card_of(network)
    images = image_batches(device, *data.values())
    given = Given(place(network, device), images, device, config.seed, config.diffusion)
    method = Training(section, given)
    train_stage(
        config, "autoencoder", method, section.optim, "autoencoder", card | method.card(),
        device=device, inputs=data, sections={"autoencoder": section}, code="autoencoder",
        tested=lambda weights: tested(weights, card),
    )  # fmt: skip


def untrained(section: AutoencoderConfig) -> Autoencoder:
    """The network of the section with fresh weights."""
    return conv_autoencoder(AutoencoderSpec(
        section.factor, section.latent_channels, section.channels, section.blocks,
        section.bottleneck == "kl",
    ))  # fmt: skip


@torch.inference_mode()
def statistics(
    network: Autoencoder, data: list[Artifact], device: torch.device
) -> dict[str, list[float]]:
    """Mean and standard deviation of each channel of the latents, in float64.

    Over the training images, each resolution weighing the same.

    Raises:
        PagodaError: a channel is constant or not finite.
    """
    plain = Autoencoder(network.network, network.factor, network.channels).to(device).eval()
    sums = []
    for artifact in data:
        images = open_images(artifact, "train")
        rows = np.arange(min(_MOMENTS, len(images)))
        parts = [encoded(plain, np.asarray(images[rows[i : i + CALL]]), device).double()
                 for i in range(0, len(rows), CALL)]  # fmt: skip
        z = torch.cat(parts)
        sums.append(torch.stack([z.mean((0, 2, 3)), z.square().mean((0, 2, 3))]))
    mean, square = torch.stack(sums).mean(0)
    std = (square - mean.square()).clamp(min=0).sqrt()
    if not bool((std > 1e-6).all()):
        raise PagodaError(
            "autoencoder: a channel of its latents is constant or not finite; train it longer or "
            "with a lower autoencoder.optim.lr, or with fewer autoencoder.latent_channels"
        )
    return {"mean": mean.tolist(), "std": std.tolist()}


def _take(config: Config, data: dict[str, Artifact], tested: Any) -> None:
    """Write the artifact from the weights that ``autoencoder.imported`` names."""
    begun, section = time.monotonic(), config.autoencoder
    folder, where = Path(section.imported), Paths(config).autoencoder
    artifacts.check_out(where, "autoencoder")
    inputs = dict(data)
    if (folder / MANIFEST).is_file():
        source = artifacts.open_artifact(folder, "autoencoder")
        inputs["imported"] = source
        weights, card = source.weights(), source.card()
        source.network(load_autoencoder)  # weights and card belong together
    else:
        weights, card = read_diffusers(folder)
    for key, name in (("factor", "factor"), ("latent_channels", "number of channels")):
        if card[key] != getattr(section, key):
            raise PagodaError(
                f"{folder}: the {name} of this autoencoder is {card[key]}, autoencoder.{key} is "
                f"{getattr(section, key)}; set it to {card[key]} or take another autoencoder"
            )
    plain = {k: v for k, v in card.items() if k not in ("mean", "std")}
    card = plain | tested(weights, plain) | {"images_seen": 0, "imported": str(folder)}
    if not distributed.is_main_process():
        return
    with artifacts.create(
        where, "autoencoder", config=identity(config, "autoencoder"), inputs=inputs,
        revision=package_revision(),
    ) as out:  # fmt: skip
        artifacts.save_weights(out, weights, card)
    with History(Paths(config).history("autoencoder")) as history:
        history.write(images=0, step=0, seconds=time.monotonic() - begun)
