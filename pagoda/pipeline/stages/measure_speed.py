"""One step in pixels, grown, beside one step on codes, decoded: time and compute of each part.

The paper's figure 9 has base + decoder beside base + growth. Here a variant is a size of images
(``target_res``, from an eighth of it) and a batch (``evaluate.batch``). All parts of all ways take
turns in one process, eager, in float32, warm: a change of the machine's load meets all of them. A
time is the median over turns, with their quartiles; a way's is the sum of its parts' medians. A
part of which a call of several images would take longer than :data:`LONGEST` is counted and not
timed. Weights are random: neither a time nor a count depends on them. A seed is a process that
measures once more.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pagoda import artifacts
from pagoda.config import Config, VariantConfig
from pagoda.errors import PagodaError
from pagoda.networks.autoencoder import (
    Autoencoder,
    AutoencoderSpec,
    conv_autoencoder,
    diffusers_autoencoder,
)
from pagoda.networks.generator import Generator, build_generator
from pagoda.pipeline.stages.compute import Untrained
from pagoda.pipeline.stages.counters import META, forward_flops
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.made import open_made
from pagoda.pipeline.stages.measurement import write_measurement
from pagoda.pipeline.stages.study_spec import Study, Variant, variant_config
from pagoda.rows import Row

FACTOR, CODES = 8, 4
"""Pixels a side of a position of the codes, and their channels: those of Stable Diffusion."""
GROWN, AS_WIDE, TAESD, KL, LCM = (
    "grown", "decoder_as_wide", "decoder_taesd", "decoder_stable_diffusion", "lcm",
)  # fmt: skip
BASE, GROWTH, DECODER = "base", "growth", "decoder"

SD_UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": CODES, "out_channels": CODES, "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
    "attention_head_dim": 8, "time_cond_proj_dim": 256,
}  # fmt: skip
"""Stable Diffusion 1.5's U-Net with LCM's embedding of the guidance (Luo et al. 2023)."""
SD_AUTOENCODER: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512], "latent_channels": CODES, "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
_TEXT = (77, 768)  # states of its text encoder, which is left out

LONGEST = 20.0
"""Seconds of the longest call of several images that is timed."""
_SPAN = 10.0  # seconds of turns; at least three of them, at most as many as below
_FEWEST, _MOST = 3, 51
_WARMING = 10.0  # seconds of a first turn, beyond which what warms is no part of it

Calls = dict[str, Callable[[], object]]
_N = TypeVar("_N", bound=nn.Module)


@dataclass(frozen=True)
class Parts:
    """Parts by name, each a call with its inputs ready, and the ways that are made of them.

    Attributes:
        calls: of a number of images.
        ways: by way (base, what makes images of it), names of parts.
    """

    calls: Callable[[int], Calls]
    ways: Mapping[str, tuple[str, str]]


def run(profile: Config, study: Study, variant: Variant, seed: int) -> None:
    """Time and count what the variant's step names; write its ``measurement``."""
    config = variant_config(profile, study, variant, seed)
    artifacts.check_out(config.places["measured"], "measurement")
    classes, device = len(open_made(profile, "features").card()["classes"]), pick_device()
    (step,) = variant.steps
    rows = measured(STEPS[step], config, classes, device)
    # The feature network, which rows name, is the profile's, whatever the size that is timed.
    of = replace(config, target_res=profile.target_res, data=profile.data)
    write_measurement(of, study, variant, rows, {}, {})


def measured(
    parts_of: Callable[[VariantConfig, int, torch.device], Parts], config: VariantConfig,
    classes: int, device: torch.device,
) -> list[Row]:  # fmt: skip
    """Rows of every way and of its two parts."""
    n, counted = config.evaluate.batch, parts_of(config, classes, META)
    flops = {name: forward_flops(call) for name, call in counted.calls(1).items()}
    seconds = timed(parts_of(config, classes, device), n, device)
    facts: dict[str, Any] = {"n": n, "resolution": config.target_res, "nfe": 1}
    rows = []
    for way, names in counted.ways.items():
        own = facts | {"generator": way}
        total = sum(flops[name] for name in names)
        rows.append(Row(metric="sampling_flops", protocol="sampling_flops", value=total, **own))
        parts = BASE, GROWTH if way == GROWN else DECODER
        for part, name in zip(parts, names, strict=True):
            metric = f"part_flops_{part}"
            rows.append(Row(metric=metric, protocol=metric, value=flops[name], **own))
            if name in seconds:
                rows.append(_time(f"part_seconds_{part}", seconds[name], own))
        if all(name in seconds for name in names):
            turns = [sum(turn) for turn in zip(*(seconds[name] for name in names), strict=True)]
            medians = (statistics.median(seconds[name]) for name in names)
            row = _time("seconds_per_image", turns, own)
            rows.append(replace(row, value=sum(medians) / n))
    return rows


def _time(metric: str, seconds: Sequence[float], facts: Mapping[str, Any]) -> Row:
    n = facts["n"]
    low, middle, high = (s / n for s in statistics.quantiles(seconds, method="inclusive"))
    return Row(
        metric=metric, protocol=f"{metric}_b{n}", value=middle, low=low, high=high,
        interval=f"quartiles_of_{len(seconds)}", **facts,
    )  # fmt: skip


@torch.inference_mode()
def timed(parts: Parts, n: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of calls with ``n`` images by part, one a turn; a short first turn is not counted.

    Parts that would take longer than :data:`LONGEST`, going by one image, are left out.
    """
    if n > 1:
        ones = {name: _seconds(call, device) for name, call in parts.calls(1).items()}
        kept = [name for name, one in ones.items() if n * one <= LONGEST]
        calls = {name: call for name, call in parts.calls(n).items() if name in kept}
        for name in ones.keys() - calls.keys():
            sys.stderr.write(f"{name}: {n} images would take {n * ones[name]:.0f} s; counted\n")
    else:
        calls = parts.calls(n)
    if not calls:
        return {}
    first = {name: [_seconds(call, device)] for name, call in calls.items()}
    whole = sum(seconds for (seconds,) in first.values())
    long = whole > _WARMING
    found: dict[str, list[float]] = first if long else {name: [] for name in calls}
    for _ in range(min(_MOST, max(_FEWEST, math.ceil(_SPAN / whole))) - long):
        for name, call in calls.items():
            found[name].append(_seconds(call, device))
    return found


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    call()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def of_decoders(config: VariantConfig, classes: int, device: torch.device) -> Parts:
    """Growth, beside decoders of the same U-Net's codes: one as wide as growth, TAESD's, and
    Stable Diffusion's where the package diffusers is installed.
    """
    grown = _generator(config, classes, device)
    card = grown.card()
    unet = card["unet"] | {"image_channels": CODES}
    with device:
        codes = _ready(build_generator(card | {"unet": unet, "levels": []}))
    assert isinstance(codes, Generator)
    decoders: dict[str, Callable[[], Autoencoder]] = {
        name: partial(conv_autoencoder, AutoencoderSpec(FACTOR, CODES, *widths))
        for name, widths in ((AS_WIDE, card["levels"][-1]), (TAESD, (64, 3)))
    }
    decoders[KL] = _stable_diffusion
    opened = {name: _decoder(name, made, device) for name, made in decoders.items()}
    known = {name: network for name, network in opened.items() if network is not None}
    side = config.base_res

    def calls(n: int) -> Calls:
        z = _noise(n, CODES, side, device)
        labels = torch.zeros(n, dtype=torch.int64, device=device)
        found: Calls = {"base of codes": lambda: codes(z, labels)}
        return (
            _of_growth(grown, n, device)
            | found
            | {name: partial(network.decode, z) for name, network in known.items()}
        )

    ways = {name: ("base of codes", name) for name in known}
    return Parts(calls, {GROWN: (BASE, GROWTH), **ways})


def of_lcm(config: VariantConfig, classes: int, device: torch.device) -> Parts:
    """Growth, beside one step of LCM at its published size where diffusers is installed."""
    grown = _generator(config, classes, device)
    decoder = _decoder(LCM, _stable_diffusion, device)
    if decoder is None:
        return Parts(lambda n: _of_growth(grown, n, device), {GROWN: (BASE, GROWTH)})
    import diffusers

    with device:
        unet: Any = _ready(diffusers.UNet2DConditionModel(**SD_UNET))
    side = config.target_res // FACTOR

    def calls(n: int) -> Calls:
        z = _noise(n, CODES, side, device)
        level, told = (torch.zeros(n, *shape, device=device) for shape in ((), _TEXT))
        weight = torch.zeros(n, SD_UNET["time_cond_proj_dim"], device=device)
        return _of_growth(grown, n, device) | {
            "U-Net of LCM": lambda: unet(z, level, told, timestep_cond=weight),
            "decoder of LCM": lambda: decoder.decode(z),
        }

    return Parts(calls, {GROWN: (BASE, GROWTH), LCM: ("U-Net of LCM", "decoder of LCM")})


STEPS = {"time_decoders": of_decoders, "time_lcm": of_lcm}


def _generator(config: VariantConfig, classes: int, device: torch.device) -> Generator:
    made = Untrained(config, classes, 1, device).generator(config.target_res)
    if len(made.levels) != FACTOR.bit_length() - 1:
        raise PagodaError(
            f"base_res = {config.base_res} and target_res = {config.target_res}; codes have an "
            f"{FACTOR}th of the side, and so must the base"
        )
    return _ready(made)


def _of_growth(grown: Generator, n: int, device: torch.device) -> Calls:
    """The trunk, and all that comes after it."""
    z = _noise(n, 3, grown.base_res, device)
    labels = torch.zeros(n, dtype=torch.int64, device=device)
    noise = torch.ones(n, device=device)
    with torch.no_grad():
        emb = grown.trunk.embed(noise, labels)
        h = grown.trunk(z, emb)

    def growth() -> Tensor:
        x = h
        for level in grown.levels:
            x = level(x, emb)
        return grown.head(x)

    return {BASE: lambda: grown.trunk(z, grown.trunk.embed(noise, labels)), GROWTH: growth}


def _stable_diffusion() -> Autoencoder:
    return diffusers_autoencoder("AutoencoderKL", SD_AUTOENCODER)


def _decoder(
    name: str, make: Callable[[], Autoencoder], device: torch.device
) -> Autoencoder | None:  # fmt: skip
    """An autoencoder on a device; None, and a line, where its package is missing."""
    try:
        with device:
            return _ready(make())
    except PagodaError as error:
        sys.stderr.write(f"without {name}: {error}\n")
        return None


def _ready(network: _N) -> _N:
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _noise(n: int, channels: int, side: int, device: torch.device) -> Tensor:
    z = torch.randn(n, channels, side, side, device=device)
    return z.contiguous(memory_format=torch.channels_last)
