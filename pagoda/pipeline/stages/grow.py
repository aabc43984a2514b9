"""Stage 3: grow the generator by one doubling of the resolution."""

from __future__ import annotations

from pathlib import Path

import torch

from pagoda import artifacts
from pagoda.config import NO_WEIGHTS, Config, GrowConfig
from pagoda.config.paths import Paths
from pagoda.networks.generator import Generator, grow, load_generator
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.train import pair_batches, take_generator, train_generator


def run(config: Config, from_res: int, to_res: int) -> None:
    """Add blocks to the generator of ``from_res`` and train them, or take the grown generator.

    Writes the ``generator`` artifact of ``to_res``.
    """
    paths, section, name = Paths(config), config.grow, {"name": config.name}
    base = name | {"base_res": config.base_res}
    data = artifacts.open_artifact(paths.data(to_res), "images", name | {"resolution": to_res})
    if section.imported != NO_WEIGHTS:
        weights = Path(section.imported) / str(to_res)
        take_generator(config, f"grow-{to_res}", weights, data, to_res)
        return
    teacher = artifacts.open_artifact(paths.teacher, "teacher", base)
    latents = artifacts.open_artifact(paths.latents, "latents", base)
    below = artifacts.open_artifact(
        paths.generator(from_res), "generator", base | {"resolution": from_res}
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
