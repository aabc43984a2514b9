"""Before stage 1, with captions: train the small CLIP that reads them."""

from __future__ import annotations

from typing import Any

import torch

from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.data.store import open_images
from pagoda.methods.clip import CaptionedGiven, ClipConfig
from pagoda.methods.clip import Clip as Training
from pagoda.networks.clip import Clip, ClipSpec, Tokenizer, learn_tokenizer
from pagoda.pipeline.stages.captioned import captions_of
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.made import open_made
from pagoda.pipeline.stages.progress import log_line
from pagoda.pipeline.stages.train import check_device, train_stage
from pagoda.training.batches import ImageBatches
from pagoda.training.sharding import place


def run(config: Config) -> None:
    """Train the CLIP by whose text encoder networks are told captions, and write ``clip``."""
    train_clip(config, "clip", config.text)


def train_clip(config: Config, key: str, section: ClipConfig) -> None:
    """Learn the tokenizer, train a CLIP on images of the target resolution, write its artifact.

    Args:
        config: its seed is that of the CLIP.
        key: name of the artifact and of the stage.
        section: sizes and training.
    """
    device = pick_device()
    check_device("text", section.optim, device)
    data = open_made(config, f"data/{config.target_res}")
    captions = captions_of(config, data)
    torch.manual_seed(config.seed)
    network = untrained(section, captions.of_training, config.target_res)
    rows, cut = network.tokenizer(captions.texts)
    for line in cut[:3]:
        log_line(line)
    card: dict[str, Any] = network.card() | {"captions": section.captions, "cut": len(cut)}
    images = ImageBatches(
        stores=[open_images(data, "train")], labels=captions.rows["train"], device=device
    )
    given = CaptionedGiven(
        place(network, device), images, device, config.seed, config.diffusion, texts=rows
    )
    inputs: dict[str, Artifact] = {"data": data}
    train_stage(
        config, key, Training(section, given), section.optim, key, card, device=device,
        inputs=inputs, sections={"text": section}, code="clip",
    )  # fmt: skip


def untrained(section: ClipConfig, captions: list[str], side: int) -> Clip:
    """The CLIP of the section with fresh weights, for captions and images of a side."""
    tokenizer = Tokenizer(learn_tokenizer(captions, section.vocabulary), section.context)
    return Clip(ClipSpec(
        side, min(section.patch, side), section.width, section.layers, section.embed,
        section.context, tokenizer.size,
    ), tokenizer)  # fmt: skip
