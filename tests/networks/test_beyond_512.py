"""Growth to 1024: shapes and counts of the paper's network, one real step of a narrow one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pagoda.config import parse
from pagoda.methods.one_step import OneStep
from pagoda.networks.generator import build_generator
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.stages.compute import Untrained
from pagoda.pipeline.stages.counters import META
from pagoda.training import loop
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import Given
from tests.methods.small import CLASSES, CPU, DIFFUSION, Case, denoiser, section
from tests.tiny import ROOT

TOP = 1024


@pytest.mark.longer
def test_the_papers_network_grows_to_1024() -> None:
    """Half the width from 512 on; a level of equal width costs four times the one below."""
    config = parse(profile_tree("imagenet_1024", ROOT))
    at = Untrained(config, 1000, 1)
    networks = {r: at.generator(r) for r in (256, 512, TOP)}
    z, y = torch.zeros(1, 3, 64, 64, device=META), torch.zeros(1, dtype=torch.int64, device=META)
    assert networks[TOP](z, y).shape == (1, 3, TOP, TOP)
    assert [level.channels for level in networks[TOP].levels] == [192, 192, 96, 96]
    sizes = {r: sum(p.numel() for p in g.parameters()) for r, g in networks.items()}
    blocks = networks[TOP].levels[-1]
    assert sizes[TOP] - sizes[512] == sum(p.numel() for p in blocks.parameters())
    calls = {r: at.call(g, config.base_res) for r, g in networks.items()}
    assert calls[TOP] > calls[512] > calls[256]


@pytest.mark.slow
def test_one_step_of_growth_to_1024_moves_the_new_blocks_alone() -> None:
    """Seven doublings of an 8x8 generator of width 8, one pair and one prior latent."""
    torch.manual_seed(0)
    levels = [[8, 0]] * 7
    noise = {"sigma_max": 80.0, "sigma_data": 0.5, "output_scale": 0.5}
    unet = denoiser().spec.to_card()
    generator = build_generator({"unet": unet, "levels": levels, **noise})
    assert generator.resolution == TOP
    generator.freeze_base(0, lower_levels=False)
    images = np.random.default_rng(0).integers(0, 256, (2, 3, TOP, TOP), dtype=np.uint8)
    labels = np.arange(2) % CLASSES
    pairs = PairBatches(
        latents=np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32),
        indices=np.arange(2), flips=np.zeros(2, np.uint8), images=images, labels=labels, device=CPU,
    )  # fmt: skip
    case = Case("one_step", "grown", {
        "prior_batch": 1, "discriminator.channels": 4, "discriminator.max_channels": 8,
    })  # fmt: skip
    config = section(case, **{"optim.batch": 1, "optim.images": 4, "optim.clip": None})
    store = ImageBatches(stores=[images], labels=labels, device=CPU)
    method = OneStep(config, Given(generator, store, CPU, 0, DIFFUSION, pairs, denoiser))
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    torch.manual_seed(0)
    stats, _ = loop.run_step(method, GlobalDraw(CPU), 1, 0.9)
    assert {"loss_rec", "loss_adv", "loss_d"} <= set(stats)
    assert all(bool(torch.isfinite(torch.as_tensor(v))) for v in stats.values())
    moved = {k for k, v in generator.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(k.startswith(("levels.6.", "head.")) for k in moved)
