"""Samplers: whatever makes images of (seed, index), with one way to draw latents and round pixels.

Sample i of a sampler has class ``i % classes`` and the latent of (seed, i), unless latents and
classes were chosen, whichever process makes it and however many there are. Networks are opened when
the first image is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.artifacts import Artifact
from pagoda.calls import calls_of, check_batch, check_truncation
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_float, to_uint8
from pagoda.diffusion.solver import Denoiser, edm_grid, guided, nfe, sample
from pagoda.evaluation.cascade import super_resolve
from pagoda.evaluation.guidance import Guidance, check_label_dropout, check_weight
from pagoda.networks.autoencoder import BESIDE, Autoencoder, autoencoder_beside
from pagoda.networks.captions import CaptionsInTurn, held_out
from pagoda.networks.denoiser import load_denoiser
from pagoda.networks.generator import TOLD, Generator, build_generator, load_generator
from pagoda.networks.super_resolution import load_super_resolver

Drawn = tuple[Tensor, Tensor, np.ndarray]
Map = Callable[[Tensor, Tensor, np.ndarray], Tensor]
"""Latents (n, c, b, b), labels (n,) and indices (n,) -> images (n, 3, r, r) in [-1, 1]."""


@dataclass(frozen=True)
class Draws:
    """Which samples are made, and how.

    Attributes:
        seed: of the latents.
        n: number of samples.
        batch: latents a call of the networks.
        device: where they run.
        chosen: (n, 2) index of the latent and class of each sample; None takes them in turn.
        truncation: most that the norm of a latent may be, as a multiple of sqrt(d); None: any.
    """

    seed: int
    n: int
    batch: int
    device: torch.device
    chosen: np.ndarray | None = field(default=None, compare=False)
    truncation: float | None = None


def choose(
    classes: Sequence[int], seeds: Sequence[int], batch: int, device: torch.device,
    truncation: float | None = None,
) -> Draws:  # fmt: skip
    """Every seed in every class, class by class: seed s is latent s of run seed 0.

    Raises:
        PagodaError: no images a call, or a truncation that is none.
    """
    check_batch(batch)
    check_truncation(truncation)
    chosen = np.array([(seed, y) for y in classes for seed in seeds], np.int64).reshape(-1, 2)
    return Draws(0, len(chosen), batch, device, chosen, truncation)


def truncated(z: np.ndarray, most: float) -> np.ndarray:
    """Latents (n, ...) whose norm is at most ``most`` sqrt(d): z min(1, most sqrt(d) / |z|).

    A standard normal latent of d numbers has a norm of nearly sqrt(d): below 1 all are shortened.
    """
    norm = np.sqrt(np.square(z, dtype=np.float64).sum(tuple(range(1, z.ndim)), keepdims=True))
    longest = most * math.sqrt(math.prod(z.shape[1:]))
    return (z * np.minimum(1, longest / norm)).astype(np.float32)


@dataclass(frozen=True)
class Sampler:
    """A model with its latents: images to be read (:class:`pagoda.evaluation.streaming.Images`).

    Attributes:
        name: as result rows have it.
        where: what messages call it.
        open: loads its networks; gives the map from latents to images and their parameters.
        side: of its images.
        base_res: side of its base images: the teacher's.
        classes: number of classes.
        nfe: network evaluations an image.
        draws: which samples.
        fingerprint: of the weights.
        below: what the same latents give one resolution below, if anything does.
        shape: of a latent; None: that of the base images.
        captions: of held-out images, where labels are captions; samples take them in turn.
    """

    name: str
    where: str
    open: Callable[[], tuple[Map, int]]
    side: int
    base_res: int
    classes: int
    nfe: int
    draws: Draws
    fingerprint: str = ""
    below: Sampler | None = None
    shape: tuple[int, ...] | None = None
    captions: CaptionsInTurn | None = None

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width."""
        return self.side, self.side

    @property
    def labels(self) -> np.ndarray:
        """(n,) class of each sample; of captions, the class of their images."""
        labels = self.which(np.arange(self.draws.n))[1]
        return labels if self.captions is None else self.captions.classes[labels]

    @property
    def parameters(self) -> int:
        """Of all networks that take part."""
        return self.open()[1]

    def __len__(self) -> int:
        return self.draws.n

    def which(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Index of the latent (n,) and class, or number of the caption, (n,) of samples."""
        if self.draws.chosen is None:
            if self.captions is not None:
                return rows, self.captions.rows[rows % len(self.captions.rows)]
            return rows, rows % self.classes
        return self.draws.chosen[rows, 0], self.draws.chosen[rows, 1]

    def latents(self, rows: np.ndarray) -> Drawn:
        """Standard normal latents (n, c, b, b) and classes (n,) of samples, and their indices."""
        (indices, labels), draws = self.which(rows), self.draws
        shape = self.shape or (3, self.base_res, self.base_res)
        z = standard_normal(draws.seed, indices, shape)
        if draws.truncation is not None:
            z = truncated(z, draws.truncation)
        on_device = torch.from_numpy(z).to(draws.device)
        y = torch.from_numpy(labels).to(draws.device)
        return on_device.contiguous(memory_format=torch.channels_last), y, indices

    @torch.inference_mode()
    def make(self, z: Tensor, labels: Tensor, indices: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, r, r) of latents, in one call.

        Raises:
            PagodaError: a pixel is not finite.
        """
        return to_uint8(self.open()[0](z, labels, indices), self.where).cpu().numpy()

    def calls(self, rows: np.ndarray) -> Iterator[tuple[Drawn, int]]:
        """What :meth:`make` is given for samples, call by call, and how many images of it count.

        Every call has ``batch`` latents (:func:`pagoda.calls.calls_of`): an image has the same
        bits however many there are and whichever process makes it.
        """
        for part, n in calls_of(rows, self.draws.batch):
            yield self.latents(part), n

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, r, r) of samples, made in :meth:`calls`."""
        parts = [self.make(*drawn)[:n] for drawn, n in self.calls(rows)]
        return np.ascontiguousarray(np.concatenate(parts))

    def card(self) -> dict[str, Any]:
        """Fingerprint of the weights, and the seed."""
        return {"generator": self.fingerprint, "seed": self.draws.seed, "n": self.draws.n}


def one_step(
    artifact: Artifact,
    draws: Draws,
    name: str = "generator",
    network: Callable[[], Generator] | None = None,
    below: Sampler | None = None,
    guidance: float = 1.0,
    autoencoder: Autoencoder | None = None,
) -> Sampler:
    """The generator of an artifact, one evaluation an image.

    Args:
        artifact: of the generator.
        draws: which samples.
        name: as result rows have it.
        network: makes another generator of that shape in its place: a baseline.
        below: what the same latents give one resolution below.
        guidance: weight that a generator is told that takes one (w = 1 is none). Others take none
            but 1.
        autoencoder: the one beside it, where that is open already.

    Raises:
        PagodaError: a weight outside the range that the generator was trained for.
    """
    card = artifact.card()
    unet, load = card["unet"], network or (lambda: artifact.network(load_generator))
    check_weight(str(artifact.path), card.get(TOLD), guidance)
    base, shape = base_of(card)

    @cache
    def opened() -> tuple[Map, int]:
        generator = _on(draws.device, load())
        decode, size = decoding(artifact, draws.device, autoencoder)

        def make(z: Tensor, labels: Tensor, _: np.ndarray) -> Tensor:
            omega = None if guidance == 1 else z.new_full((len(z),), guidance)
            return decode(generator(z, labels, omega=omega))

        return make, _count(generator) + size

    return Sampler(name, str(artifact.path), opened, base * 2 ** len(card["levels"]), base,
                   unet["num_classes"], 1, draws, artifact.fingerprint, below, shape,
                   held_out(artifact))  # fmt: skip


def base_of(card: Mapping[str, Any]) -> tuple[int, tuple[int, int, int]]:
    """Side of a model's base images, from its card, and the shape of its latents.

    Models of an autoencoder's codes have latents that are smaller than the images by its factor.
    """
    unet, factor = card["unet"], (card.get(BESIDE) or {}).get("factor", 1)
    side = unet["resolution"]
    return side * factor, (unet.get("image_channels", 3), side, side)


def decoding(
    artifact: Artifact, device: torch.device, autoencoder: Autoencoder | None = None
) -> tuple[Callable[[Tensor], Tensor], int]:
    """What makes images of the network's answers, and its parameters; nothing of a pixel model.

    ``autoencoder`` is the one beside the network, where that is open already.
    """
    found = autoencoder_beside(artifact) if autoencoder is None else autoencoder
    if found is None:
        return lambda x: x, 0
    on_device = _on(device, found)
    return on_device.decode, _count(on_device.decoder)


def teacher(
    artifact: Artifact,
    draws: Draws,
    steps: int,
    guidance: float | Guidance = 1.0,
    name: str = "teacher",
    network: Callable[[], Denoiser] | None = None,
    autoencoder: Autoencoder | None = None,
) -> Sampler:
    """The diffusion teacher of an artifact, by Heun's method on ``steps`` noise levels.

    ``network`` gives its denoiser, and ``autoencoder`` is the one beside it, where these are open
    already.

    Raises:
        PagodaError: classifier-free guidance of a teacher that was told every class.
    """
    how = guidance if isinstance(guidance, Guidance) else Guidance(guidance)
    card = artifact.card()
    unet, load = card["unet"], network or (lambda: artifact.network(load_denoiser))
    if how.guide is None:
        check_label_dropout(str(artifact.path), card, how.weight)

    base, shape = base_of(card)

    @cache
    def opened() -> tuple[Map, int]:
        denoiser = _on(draws.device, load())
        decode, size = decoding(artifact, draws.device, autoencoder)
        guide = None if how.guide is None else _on(draws.device, how.guide())
        solve = heun(denoiser, card["diffusion"], steps, how.weight, how.levels, guide)
        size += _count(denoiser) + (0 if guide is None else _count(guide))
        return lambda *drawn: decode(solve(*drawn)), size

    calls = nfe(steps, "heun", guidance=how.weight, guided_levels=how.levels,
                grid=_grid(card["diffusion"], steps))  # fmt: skip
    return Sampler(
        name, str(artifact.path), opened, base, base, unet["num_classes"], calls, draws,
        artifact.fingerprint, shape=shape, captions=held_out(artifact),
    )  # fmt: skip


def heun(
    denoiser: Denoiser, schedule: Mapping[str, float], steps: int, guidance: float = 1.0,
    levels: tuple[float, float] | None = None, guide: Denoiser | None = None,
) -> Map:  # fmt: skip
    """Images of standard normal latents by Heun's method.

    Args:
        denoiser: the network.
        schedule: ``sigma_min``, ``sigma_max`` and ``rho`` of the grid.
        steps: its noise levels.
        guidance: weight of the classes; 1 is none.
        levels: noise levels that are guided; None: all.
        guide: weaker denoiser, for autoguidance.
    """
    grid, network = _grid(schedule, steps), guided(denoiser, guidance, guide=guide, levels=levels)
    return lambda z, labels, _: sample(network, z * schedule["sigma_max"], grid, labels)


def _grid(schedule: Mapping[str, float], steps: int) -> Tensor:
    return edm_grid(steps, schedule["sigma_min"], schedule["sigma_max"], schedule["rho"])


def super_resolved(
    below: Sampler, artifact: Artifact, schedule: Mapping[str, float], steps: int, noise: float
) -> Sampler:
    """A cascade's super-resolution model on the images of a sampler.

    They are enlarged and get noise of level ``noise``; the rest is as of :func:`heun`.
    """
    draws, side = below.draws, 2 * below.side

    def drawn(indices: np.ndarray, stream: str) -> Tensor:
        z = standard_normal(draws.seed, indices, (3, side, side), f"{stream}-{side}")
        return torch.from_numpy(z).to(draws.device).contiguous(memory_format=torch.channels_last)

    @cache
    def opened() -> tuple[Map, int]:
        resolver, (lower, count) = (
            _on(draws.device, artifact.network(load_super_resolver)),
            below.open(),
        )

        def make(z: Tensor, labels: Tensor, indices: np.ndarray) -> Tensor:
            added, start = (drawn(indices, stream) for stream in ("condition", "cascade"))
            low = lower(z, labels, indices)
            return super_resolve(resolver, low, labels, schedule, steps, noise, added, start)

        return make, count + _count(resolver)

    return Sampler(
        below.name, str(artifact.path), opened, side, below.base_res, below.classes,
        below.nfe + nfe(steps, "heun"), draws, artifact.fingerprint, below, below.shape,
    )  # fmt: skip


def upsampled(below: Sampler, side: int, name: str) -> Sampler:
    """The uint8 images of a sampler, enlarged."""

    def opened() -> tuple[Map, int]:
        lower, count = below.open()
        return lambda *drawn: upsample(to_uint8(lower(*drawn), below.where), side), count

    return Sampler(name, below.where, opened, side, below.base_res, below.classes, below.nfe,
                   below.draws, below.fingerprint, below, below.shape, below.captions)  # fmt: skip


def upsample(images: Tensor, side: int) -> Tensor:
    """uint8 images -> images in [-1, 1] of another size, bilinear, half-pixel centres."""
    return F.interpolate(to_float(images), (side, side), mode="bilinear", align_corners=False)


def untrained(card: dict[str, Any], seed: int) -> Generator:
    """The generator of a card with random weights in every layer.

    Layers that training starts at zero are made random too: as initialised, every sample would be
    the same grey.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = build_generator(card)
        for module in generator.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return generator.eval()


def teacher_weights(teacher: Artifact, card: dict[str, Any]) -> Generator:
    """A teacher's weights as the one-step generator of a card, which distillation starts at."""
    start = card | {"unet": teacher.card()["unet"]}  # imported ones can differ in it
    start.pop(TOLD, None)  # it is told no weight of the guidance

    def load(weights: dict[str, Tensor], _: dict[str, Any]) -> Generator:
        return load_generator({k.removeprefix("net."): v for k, v in weights.items()}, start)

    return teacher.network(load)


def _on(device: torch.device, network: Any) -> Any:
    return network.to(device).to(memory_format=torch.channels_last)


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())
