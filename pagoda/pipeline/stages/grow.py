"""Stage 3: grow the generator by one doubling of the resolution."""

from __future__ import annotations

from pathlib import Path

import torch

from pagoda.config import NO_WEIGHTS, Config, GrowConfig
from pagoda.networks.generator import Generator, grow, load_generator
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.made import open_made
from pagoda.pipeline.stages.train import pair_batches, take_network, train_generator


def run(config: Config, from_res: int, to_res: int) -> None:
    """Add blocks to the generator of ``from_res`` and train them, or take the grown generator.

    Writes the ``generator`` artifact of ``to_res``.
    """
    section, data = config.grow, open_made(config, config.modelled(to_res))
    if section.imported != NO_WEIGHTS:
        folder, key, card = Path(section.imported, str(to_res)), f"gen/{to_res}", {"trainable": 0}
        take_network(config, f"grow-{to_res}", folder, load_generator, key, card, data)
        return
    teacher, latents, below = (
        open_made(config, key) for key in ("teacher", "latents", f"gen/{from_res}")
    )
    torch.manual_seed(config.seed)
    generator = grow(
        below.network(load_generator),
        channels=level_channels(section, to_res),
        blocks=section.blocks,
    )
    freeze(generator, section)
    train_generator(
        config, f"grow-{to_res}", section, generator, pair_batches(latents, data, pick_device()),
        inputs={"data": data, "teacher": teacher, "latents": latents, "below": below},
        sections={"grow": section},
    )  # fmt: skip


def level_channels(section: GrowConfig, resolution: int) -> int:
    """Width of the new blocks at ``resolution``."""
    start = section.half_width_from
    return section.channels // (2 if start is not None and resolution >= start else 1)


def freeze(generator: Generator, section: GrowConfig) -> None:
    """Leave trainable what ``grow.trainable`` names."""
    if section.trainable == "highest":
        generator.freeze_below_top()
    else:
        generator.freeze_base(section.trainable_base_blocks, section.train_lower_levels)
