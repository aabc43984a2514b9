"""Text-to-image models in use: prompts and seeds to images, images to latents.

    >>> t = pagoda.load_diffusers("stable-diffusion-v1-5/stable-diffusion-v1-5")
    >>> images = t.sample("a red circle", seeds=range(4), steps=20, guidance=7.5)   # uint8
    >>> z = t.invert(images, "a red circle")          # their latents, (4, 4, 64, 64)

Stable Diffusion, DeepFloyd-IF's first stage (both an ODE in the suite's own solver) and latent
consistency models (one to a few evaluations of the network).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda.calls import device_of, in_calls, keys_of, tensor, whole
from pagoda.data.noise import dithered, standard_normal
from pagoda.data.pixels import as_float
from pagoda.diffusion.solver import Denoiser, guided, invert, nfe, sample
from pagoda.errors import PagodaError
from pagoda.evaluation.samplers import Draws, Sampler, choose
from pagoda.text_to_image.autoencoder import Autoencoder
from pagoda.text_to_image.denoiser import Consistency, DiscreteDenoiser, Limits
from pagoda.text_to_image.folder import Folder, find
from pagoda.text_to_image.prompts import T5_LENGTH, Encoded, TextEncoder, checked
from pagoda.text_to_image.schedule import NoiseSchedule
from pagoda.text_to_image.steps import Steps, chosen

Prompts = str | Sequence[str] | Tensor | Encoded
"""Texts, or what a text encoder made of them, (n, l, d)."""
STEPS, CONSISTENCY_STEPS = 40, 4
"""Steps unless told otherwise: PaGoDA's (section 5.1), and those that LCM is published with."""
CONSISTENCY_GUIDANCE = 8.5
"""Of LCM unless told otherwise, as diffusers has it: it was trained with 3 to 15."""
_Route = Callable[[Tensor, Tensor, np.ndarray], Tensor]  # latents, states, indices -> clean latents


class TextToImage:
    """A pipeline of diffusers as a teacher, or a rival, of the suite's own generators.

    Attributes:
        path: its folder.
        pipeline: diffusers' name of its kind.
        denoiser: D(x; sigma, text) without guidance and limits.
        schedule: the noise levels that it knows.
        limits: what becomes of its images before a step.
        consistency: the map of LCM; None of others.
        autoencoder: from latents to images; None of a model that works on pixels.
        shape: (c, b, b) of latents.
        resolution: side of images.
        batch: images a call.
    """

    def __init__(self, folder: Folder, device: torch.device) -> None:
        scheduler = folder.scheduler()
        self.path, self.pipeline, self.device = folder.path, str(folder.pipeline), device
        self._folder, self.batch = folder, 1 if device.type == "cpu" else 8
        self.schedule = NoiseSchedule.of(scheduler.alphas_cumprod)
        self.limits = Limits.of(scheduler)
        unet = folder.network("unet").to(device)
        prediction = scheduler.config.get("prediction_type", "epsilon")
        self.denoiser = DiscreteDenoiser(unet, self.schedule, prediction).eval()
        pixels = self.pipeline == "IFPipeline"
        self.autoencoder = None if pixels else Autoencoder(folder.network("vae").to(device))
        self.consistency = self._consistency(scheduler)
        side = self.denoiser.config.sample_size
        if type(side) is not int:
            raise PagodaError(
                f"{folder.path}: sample_size of its unet is {side!r}, expected a side"
            )
        self.shape = self.denoiser.channels, side, side
        self.resolution = side if self.autoencoder is None else side * self.autoencoder.factor

    def _consistency(self, scheduler: Any) -> Consistency | None:
        if self.pipeline != "LatentConsistencyModelPipeline":
            return None
        config = scheduler.config
        if "original_inference_steps" not in config:
            raise PagodaError(f"{self.path}: its scheduler is none of a consistency model's")
        if self.denoiser.config.time_cond_proj_dim is None:
            raise PagodaError(f"{self.path}: its unet has no input for the weight of guidance")
        steps = int(config["original_inference_steps"])
        return Consistency(self.denoiser, self.limits, config["timestep_scaling"], steps)

    @cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder, opened when a prompt is first read.

        Raises:
            PagodaError: one line: which of its files is missing, and how to give it.
        """
        tokenizer, network = self._folder.tokenizer(), self._folder.network("text_encoder")
        t5 = self._folder.kind("text_encoder") == "T5EncoderModel"
        length = T5_LENGTH if t5 else int(tokenizer.model_max_length)
        return TextEncoder(tokenizer, network.to(self.device), length, masked=t5)

    def read(self, prompts: Prompts) -> Encoded:
        """What the text encoder makes of prompts, and what had to be cut.

        Raises:
            PagodaError: no prompt, an empty one, states of another shape, no encoder.
        """
        if isinstance(prompts, Encoded):
            return prompts
        if not isinstance(prompts, Tensor):
            return self.encoder(checked(prompts))
        config = self.denoiser.config
        wide = config.get("encoder_hid_dim") or config.cross_attention_dim
        if prompts.ndim != 3 or not len(prompts) or prompts.shape[2] != wide:
            raise PagodaError(
                f"embeddings are of shape {tuple(prompts.shape)}; {self.path} takes (n, l, {wide})"
            )
        return Encoded(prompts.to(self.device, torch.float32))

    def latents(self, seeds: int | Iterable[int]) -> Tensor:
        """Latents (n, c, b, b) ~ N(0, I) of seeds, on the device."""
        z = standard_normal(0, np.array(whole(seeds), np.int64), self.shape)
        return torch.from_numpy(z).to(self.device)

    @torch.no_grad()
    def __call__(self, latents: Any, prompts: Prompts, *, keys: Any = None, **how: Any) -> Tensor:
        """Latents (n, c, b, b), standard normal, and n prompts, or one -> images (n, 3, r, r).

        Args:
            latents: what the network sees at the first noise level: sqrt(1 + sigma^2) times it is
                the state of the ODE there.
            prompts: texts or embeddings.
            keys: (n,) whole numbers, None: 0, 1, ...; seeds of the noise between the steps of a
                consistency model.
            how: fields of :class:`Steps`.

        Returns:
            Float images, nominally in [-1, 1], not clamped.

        Raises:
            PagodaError: latents of another shape, an unknown setting, a noise level that the
                network does not know.
        """
        z = tensor(latents).to(self.device, torch.float32)
        if z.ndim != 4 or tuple(z.shape[1:]) != self.shape:
            raise PagodaError(
                f"latents are of shape {tuple(z.shape)}; {self.path} takes (n, "
                f"{', '.join(map(str, self.shape))})"
            )
        states, route = self._states(prompts, len(z)), self._route(self._steps(how))
        at = keys_of(keys, len(z))
        rows = torch.arange(len(z), device=self.device)
        return in_calls(
            lambda z, states, i: self.decode(route(z, states, at[i.cpu().numpy()])),
            self.batch, z, states, rows,
        )  # fmt: skip

    def sample(
        self, prompts: Prompts, seeds: int | Iterable[int] = range(4), **how: Any
    ) -> np.ndarray:
        """Images of every seed for every prompt, prompt by prompt.

        Args:
            prompts: texts or embeddings.
            seeds: whole numbers from 0; the same latents for every prompt.
            how: fields of :class:`Steps`: ``steps``, ``guidance`` (1 is none), ``solver``, ...

        Returns:
            (prompts * seeds, 3, r, r) uint8.

        Raises:
            PagodaError: as of a call.
        """
        told = self._said(self.read(prompts))
        draws = self.draws(len(told.states), seeds)
        return self.sampler(draws, told, **how).read(np.arange(draws.n))

    def draws(self, prompts: int, seeds: int | Iterable[int]) -> Draws:
        """Every seed for every one of some prompts, prompt by prompt.

        Raises:
            PagodaError: no seed, or one that is none.
        """
        if not (wanted := whole(seeds)):
            raise PagodaError("no seed is given, so there is nothing to make")
        return choose(range(prompts), wanted, self.batch, self.device)

    def sampler(self, draws: Draws, prompts: Prompts, **how: Any) -> Sampler:
        """The samples of these draws, whose classes are the prompts, as the evaluation reads them.

        Arguments as of :meth:`sample`."""
        states, steps = self.read(prompts).states, self._steps(how)
        route = self._route(steps)

        def make(z: Tensor, labels: Tensor, indices: np.ndarray) -> Tensor:
            return self.decode(route(z, states[labels], indices))

        networks = [self.denoiser, self.autoencoder]
        count = sum(p.numel() for m in networks if m is not None for p in m.parameters())
        return Sampler(
            "text_to_image", str(self.path), lambda: (make, count), self.resolution, self.shape[1],
            len(states), self.evaluations(**how), draws, self.fingerprint, shape=self.shape,
        )  # fmt: skip

    def evaluations(self, **how: Any) -> int:
        """Evaluations of the U-Net an image; guidance of an ODE takes twice as many."""
        steps = self._steps(how)
        if self.consistency is not None:
            return steps.count
        return nfe(steps.count, steps.solver, guidance=self._weight(steps))

    def weight(self, **how: Any) -> float:
        """The weight of guidance that these settings mean; 1 is none."""
        return self._weight(self._steps(how))

    @cached_property
    def fingerprint(self) -> str:
        """Of the configurations and weights that make images."""
        return self._folder.fingerprint()

    @torch.no_grad()
    def invert(
        self, images: Any, prompts: Prompts, *, noise: float = 0.0,
        keys: Sequence[int] | None = None, run_seed: int = 0, **how: Any,
    ) -> Tensor:  # fmt: skip
        """Images -> latents (n, c, b, b), in the units of :meth:`latents`.

        The probability-flow ODE upwards (section 3.1) from the smallest noise level that the
        network knows, which a clean image does not have: ``noise`` adds some first.

        Args:
            images: (n, 3, r, r), uint8 or float in [-1, 1].
            prompts: n texts or embeddings, or one.
            noise: standard deviation of the noise added, where the ODE then begins; 0: none.
            keys: (n,) whole numbers, None: 0, 1, ...; with ``run_seed`` the seeds of that noise.
            run_seed: see ``keys``.
            how: fields of :class:`Steps`; guidance is 1, none, unless told otherwise.

        Raises:
            PagodaError: as of a call; or a consistency model, which has no ODE.
        """
        if self.consistency is not None:
            raise PagodaError(
                f"{self.path} is a consistency model: it maps noise to images in a few steps and "
                "inverts nothing; invert with the model that it was distilled from"
            )
        steps = self._steps(how | ({"sigma_min": noise} if noise else {}))
        x = self.encode(images)
        if noise:
            x = dithered(x, noise, run_seed, keys_of(keys, len(x)))
        grid, solve = steps.grid(self.schedule), self._denoiser(steps)
        states = self._states(prompts, len(x))
        made = in_calls(
            lambda x, states: invert(solve, x, grid, states, steps.solver), self.batch, x, states
        )
        return made / math.sqrt(1 + grid[0].item() ** 2)

    @torch.no_grad()
    def encode(self, images: Any) -> Tensor:
        """Images (n, 3, r, r), uint8 or float in [-1, 1] -> clean latents (n, c, b, b).

        Those of the autoencoder; the images themselves of a model that works on pixels.
        """
        x, side = tensor(images), self.resolution
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, side, side):
            raise PagodaError(
                f"images are of shape {tuple(x.shape)}; {self.path} takes (n, 3, {side}, {side}): "
                f"cut or resize them to {side} pixels a side first"
            )
        x = as_float(x, self.device)
        if self.autoencoder is None:
            return x
        return in_calls(self.autoencoder.encode, self.batch, x)

    def decode(self, latents: Tensor) -> Tensor:
        """Clean latents (n, c, b, b) -> images (n, 3, r, r), float."""
        return latents if self.autoencoder is None else self.autoencoder.decode(latents)

    def _states(self, prompts: Prompts, n: int) -> Tensor:
        """States (n, l, d) of n prompts, or of one for all."""
        states = self._said(self.read(prompts)).states
        if len(states) not in (1, n):
            raise PagodaError(f"{len(states)} prompts do not go with {n}; give one each, or one")
        return states.expand(n, -1, -1)

    def _said(self, told: Encoded) -> Encoded:
        for line in told.cut:
            warnings.warn(line, stacklevel=3)
        return told

    def _steps(self, how: dict[str, Any]) -> Steps:
        usual = STEPS if self.consistency is None else CONSISTENCY_STEPS
        return chosen(how, usual)

    def _weight(self, steps: Steps) -> float:
        usual = 1.0 if self.consistency is None else CONSISTENCY_GUIDANCE
        return usual if steps.guidance is None else float(steps.guidance)

    def _denoiser(self, steps: Steps) -> Denoiser:
        """With guidance and limits."""
        weight = self._weight(steps)
        if weight != 1 and self.denoiser.empty is None and self._folder.kind("text_encoder"):
            self.denoiser.empty = self.encoder([""]).states
        return self.limits.apply(guided(self.denoiser, weight))

    def _route(self, steps: Steps) -> _Route:
        """From latents to clean ones."""
        if self.consistency is not None:
            return self._few_steps(self.consistency, steps)
        grid, solve = steps.grid(self.schedule), self._denoiser(steps)
        scale = math.sqrt(1 + grid[0].item() ** 2)
        return lambda z, states, _: sample(solve, scale * z, grid, states, steps.solver)

    def _few_steps(self, consistency: Consistency, steps: Steps) -> _Route:
        if (steps.sigma_min, steps.sigma_max) != (None, None):
            raise PagodaError("a consistency model begins at its own noise level; choose its times")
        times: Any = steps.times
        if times is None:
            times = consistency.times(steps.count).tolist()
        levels = Steps(times=[int(t) for t in times]).grid(self.schedule)[:-1]
        scale = math.sqrt(1 + levels[0].item() ** 2)
        weight = self._weight(steps)

        def route(z: Tensor, states: Tensor, indices: np.ndarray) -> Tensor:
            def noise(k: int) -> Tensor:
                return torch.from_numpy(
                    standard_normal(0, indices, self.shape, f"consistency-{k}")
                ).to(z)

            return consistency.sample(scale * z, levels, states, weight, noise)

        return route


def load_diffusers(source: str | Path, device: str | torch.device | None = None) -> TextToImage:
    """Open a text-to-image pipeline of the library diffusers.

    Args:
        source: folder that ``save_pretrained`` wrote or ``hf download`` made, or ``owner/name`` of
            the Hugging Face hub.
        device: where it runs; None: a visible GPU, or the CPU.

    Raises:
        PagodaError: one line: nothing is there, it is something else, or damaged; or there is no
            such device here.
    """
    there = device_of(device)
    return TextToImage(Folder(find(str(source))), there)
