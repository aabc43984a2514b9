"""What images cost: compute and time of one-step and many-step samplers, part by part.

Counts and times do not depend on weights, so the networks are freshly made and nothing is trained.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from pagoda.config import VariantConfig
from pagoda.diffusion.solver import nfe
from pagoda.networks.autoencoder import Decoded
from pagoda.networks.generator import Generator
from pagoda.pipeline.stages.compute import Untrained
from pagoda.pipeline.stages.counters import forward_flops, parameters

_REPEATS = 5
Values = dict[str, tuple[str, float]]


def sampling_costs(
    config: VariantConfig, counts: tuple[str, ...], classes: int, device: torch.device
) -> list[tuple[str, int, int | None, Values]]:
    """(generator, resolution, NFE, values) of every sampler of a variant.

    The time of a many-step sampler is that of one evaluation times its number of evaluations.
    """
    untrained = Untrained(config, classes, images=1, device=device)  # nothing is inverted here
    steps = nfe(config.evaluate.teacher_steps, "heun")
    denoiser = untrained.denoiser().eval()
    one_call = _call(config, denoiser, config.base_res, device, extra=1)
    base = scaled(one_call, steps)
    if "cascade" in counts:
        return _cascade(config, untrained, base, steps)
    if "distill" not in counts:
        return [("teacher", config.base_res, steps, base)]
    found: list[tuple[str, int, int | None, Values]] = [("teacher", config.base_res, steps, base)]
    autoencoder = untrained.autoencoder().eval() if config.latent else None
    for resolution in config.resolutions:
        generator = untrained.generator(resolution).eval()
        name = "student" if resolution == config.base_res else "grown"
        network = generator if autoencoder is None else Decoded(generator, autoencoder)
        values = _call(config, network, resolution, device)
        parts = _parts(config, generator, device) if resolution == config.target_res else {}
        if parts and autoencoder is not None:
            n = config.evaluate.batch
            codes = torch.randn(n, *config.shape(resolution), device=device)
            parts |= _part("decoder", autoencoder.decode, [codes], n)
        found.append((name, resolution, 1, values | parts))
    return found


def scaled(values: Values, factor: float) -> Values:
    """Time and compute of ``factor`` calls; parameters do not multiply."""
    return {
        k: (name, value if k == "parameters" else value * factor)
        for k, (name, value) in values.items()
    }


def _cascade(
    config: VariantConfig, untrained: Untrained, base: Values, steps: int
) -> list[tuple[str, int, int | None, Values]]:
    found: list[tuple[str, int, int | None, Values]] = [("cascade", config.base_res, steps, base)]
    more = nfe(config.studies.cascade.steps, "heun")
    for resolution in config.resolutions[1:]:
        resolver = untrained.resolver(resolution).eval()
        own = scaled(_call(config, resolver, resolution, untrained.device, extra=2), more)
        steps += more
        base = {k: (name, value + own[k][1]) for k, (name, value) in base.items()}
        found.append(("cascade", resolution, steps, base))
    return found


def _call(
    config: VariantConfig,
    network: torch.nn.Module,
    resolution: int,
    device: torch.device,
    extra: int = 0,
) -> Values:
    """One evaluation: seconds and FLOPs an image, parameters.

    Args:
        extra: 0 for a generator, 1 for a denoiser (sigma), 2 for a super-resolver (condition too).
    """
    batch = config.evaluate.batch
    shape = config.shape(config.base_res if extra == 0 else resolution)

    def inputs(n: int) -> list[Tensor]:
        x = torch.randn(n, *shape, device=device)
        labels = torch.zeros(n, dtype=torch.int64, device=device)
        level = torch.ones(n, device=device)
        return [[x, labels], [x, level, labels], [x, level, labels, x, level]][extra]

    return {
        "seconds_per_image": (f"seconds_per_image_b{batch}", timed(network, inputs(batch)) / batch),
        "sampling_flops": ("sampling_flops", forward_flops(network, *inputs(1))),
        "parameters": ("parameters", float(parameters(network))),
    }


@torch.inference_mode()
def timed(network: Callable[..., Tensor], inputs: list[Tensor]) -> float:
    """Median seconds of a call, the first one not counted."""
    seconds = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        network(*inputs)
        if inputs[0].is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds[1:])[_REPEATS // 2]


def _parts(config: VariantConfig, generator: Generator, device: torch.device) -> Values:
    """Seconds and FLOPs an image of the trunk, every level and the head."""
    n = config.evaluate.batch
    emb = torch.zeros(n, generator.trunk.embedding, device=device)
    h = torch.zeros(n, *generator.spec.shape, device=device)
    values: Values = {}
    levels = zip(config.resolutions[1:], generator.levels, strict=True)
    named = [("trunk", generator.trunk), *((f"level-{r}", level) for r, level in levels)]
    for name, part in named:
        values |= _part(name, part, [h, emb], n)
        with torch.inference_mode():
            h = part(h, emb)
    return values | _part("head", generator.head, [h], n)


def _part(name: str, part: Callable[..., Tensor], inputs: list[Tensor], n: int) -> Values:
    seconds, flops = timed(part, inputs) / n, forward_flops(part, *inputs) / n
    return {
        f"part_seconds_{name}": (f"part_seconds_{name}_b{n}", seconds),
        f"part_flops_{name}": (f"part_flops_{name}", flops),
    }
