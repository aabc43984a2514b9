"""Trained generators and teachers, opened for use: :func:`pagoda.load`.

    >>> g = pagoda.load("runs/smoke/b8/gen/32")
    >>> x = g(g.latents([0, 1]), [3, 3])              # float in [-1, 1], (2, 3, 32, 32)
    >>> images = g.sample(classes=[0, 3], seeds=range(64))          # uint8, (128, 3, 32, 32)

A sample is a function of its seed and its class. Seed s is latent s of run seed 0, so
``pagoda evaluate --images GEN --seeds 0`` scores the seeds 0, 1, ... in the classes in turn.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pagoda import hub
from pagoda.artifacts import Artifact
from pagoda.calls import (
    check_truncation,
    device_of,
    images_a_call,
    in_calls,
    keys_of,
    listed,
    tensor,
    whole,
)
from pagoda.data.noise import dithered, standard_normal
from pagoda.data.pixels import as_float
from pagoda.diffusion.solver import clamped, edm_grid, guided, invert
from pagoda.errors import PagodaError
from pagoda.evaluation import samplers
from pagoda.evaluation.alignment import Reader, tell
from pagoda.evaluation.guidance import Guidance, check_label_dropout, check_weight
from pagoda.evaluation.samplers import Draws, Sampler, choose, heun, one_step, teacher, truncated
from pagoda.networks import denoiser, generator
from pagoda.networks.autoencoder import Decoded, autoencoder_beside
from pagoda.provenance import MODELS, PAPER_INVERSION, class_names, inversion, open_model, schedule
from pagoda.weight_files import NoRandomValues

Array = Tensor | np.ndarray
Classes = int | str | Iterable[int | str] | None
"""Classes by number or name; None: all of them."""

_SHOWN = 12  # names of classes in a message


def load(source: str | Path, device: str | torch.device | None = None) -> Generator | Teacher:
    """Open a trained generator or teacher.

    Args:
        source: folder of a run's generator or teacher (``runs/smoke/b8/gen/32``), an exported
            one, or ``owner/name`` of the Hugging Face hub.
        device: where it runs; None: a visible GPU, or the CPU.

    Raises:
        PagodaError: one line: nothing is there, it is something else, or damaged; or there is no
            such device here.
    """
    there = device_of(device)
    named = hub.is_name(source := str(source))
    artifact = open_model(hub.fetch(source, MODELS) if named else Path(source))
    kind = Generator if artifact.manifest["kind"] == "generator" else Teacher
    return kind(artifact, there)


class Model(ABC):
    """What generators and teachers have in common.

    Attributes:
        artifact: its folder and manifest.
        network: the module itself, frozen, in eval mode.
        device: where it is.
        batch: images a call of :meth:`sample` and ``invert``, :data:`pagoda.calls.CALL`.
        card: architecture and training facts.
        num_classes: number of classes.
        base_res: side of the teacher's images.
        latent_shape: of a latent; of a model of codes smaller than its images.
        autoencoder: whose codes it models, if it does.
        resolution: side of the images.
    """

    def __init__(self, artifact: Artifact, network: nn.Module, device: torch.device) -> None:
        self.artifact, self.device = artifact, device
        network = network.to(device).to(memory_format=torch.channels_last)
        self.network: Any = network.eval().requires_grad_(False)
        self.batch = images_a_call(device)
        self.card = artifact.card()
        self.num_classes = int(self.card["unet"]["num_classes"])
        self.base_res, self.latent_shape = samplers.base_of(self.card)
        self.autoencoder = autoencoder_beside(artifact, device)
        self.resolution = self.base_res << len(self.card.get("levels", []))
        self._names = class_names(artifact)

    @property
    def classes(self) -> list[str]:
        """The name of each class; its number where names are not known."""
        return self._names or [str(y) for y in range(self.num_classes)]

    def numbers(self, classes: Classes = None) -> list[int]:
        """Classes by number.

        Raises:
            PagodaError: for a class that there is not.
        """
        if classes is None:
            return list(range(self.num_classes))
        named = {name: y for y, name in enumerate(self.classes)}
        try:
            given = listed(classes)
        except TypeError:
            given = [classes]
        found = []
        for asked in given:
            if (y := self._number(asked, named)) is None:
                more = " ..." * (self.num_classes > _SHOWN)
                unknown = ", but not by name: its run is without the images that it was trained on"
                names = f" ({', '.join(self.classes[:_SHOWN])}{more})" if self._names else unknown
                raise PagodaError(
                    f"there is no class {asked!r}; {self.artifact.path} knows "
                    f"0 to {self.num_classes - 1}{names}"
                )
            found.append(y)
        return found

    def _number(self, asked: Any, named: Mapping[str, int]) -> int | None:
        """Of a class by number or name; None if there is none."""
        try:
            y = named.get(asked) if isinstance(asked, str) else operator.index(asked)
        except TypeError:
            return None
        return y if y is not None and 0 <= y < self.num_classes else None

    def latents(self, seeds: int | Iterable[int], truncation: float | None = None) -> Tensor:
        """Latents (n, c, b, b) ~ N(0, I) of seeds, on the device.

        Args:
            seeds: whole numbers from 0.
            truncation: most that the norm of a latent may be, as a multiple of sqrt(d).

        Raises:
            PagodaError: a seed or a truncation that is none.
        """
        indices = np.array(whole(seeds), np.int64)
        check_truncation(truncation)
        z = standard_normal(0, indices, self.latent_shape)
        z = z if truncation is None else truncated(z, truncation)
        return torch.from_numpy(z).to(self.device)

    def draws(
        self, classes: Classes, seeds: int | Iterable[int], truncation: float | None = None
    ) -> Draws:
        """Every seed in every class, class by class, as samplers draw them.

        Raises:
            PagodaError: an unknown class, a seed or a truncation that is none, nothing to make.
        """
        wanted, numbers = whole(seeds), self.numbers(classes)
        if not wanted or not numbers:
            raise PagodaError("no seed or no class is given, so there is nothing to make")
        return choose(numbers, wanted, self.batch, self.device, truncation)

    def tell(self, prompts: Sequence[str], reader: Reader | None = None) -> tuple[str, ...]:
        """Prompts in place of the captions that the model knows: classes are theirs from then on.

        Args:
            prompts: texts.
            reader: the model's text encoder, where that is not the CLIP beside it.

        Returns:
            A line for each prompt that was too long, which says where it was cut.

        Raises:
            PagodaError: the model is told classes, has no text encoder, or a prompt is empty.
        """
        cut = tell(self.artifact, self.network, prompts, reader)
        self.num_classes, self._names = len(prompts), list(prompts)
        return cut

    @abstractmethod
    def sampler(self, draws: Draws) -> Sampler:
        """The samples of these draws, as the evaluation reads them."""

    def _latents(self, latents: Array) -> Tensor:
        """Latents as the network takes them."""
        z = tensor(latents).to(self.device, torch.float32)
        if z.ndim != 4 or tuple(z.shape[1:]) != self.latent_shape:
            raise PagodaError(
                f"latents are of shape {tuple(z.shape)}; {self.artifact.path} takes "
                f"(n, {', '.join(map(str, self.latent_shape))})"
            )
        return z.contiguous(memory_format=torch.channels_last)

    def labels(self, labels: int | Sequence[int] | Array, n: int) -> Tensor:
        """(n,) class numbers on the device; one number is the class of all.

        Raises:
            PagodaError: they are no class numbers, or not n.
        """
        if isinstance(labels, str):
            raise PagodaError(f"labels are class numbers; numbers({labels!r}) gives that of a name")
        y = tensor(labels).cpu()
        y = y if y.is_floating_point() else y.long()
        if y.is_floating_point() or y.ndim > 1 or (y.ndim == 1 and len(y) != n):
            raise PagodaError(
                f"labels are {y.dtype} of shape {tuple(y.shape)}; {n} whole numbers are needed, "
                "or one for all"
            )
        if len(wrong := y[(y < 0) | (y >= self.num_classes)]):
            self.numbers(int(wrong[0]))  # says what there is
        return y.expand(n).to(self.device)


class Generator(Model):
    """A one-step generator: latents and classes in, images out, one evaluation of the network."""

    def __init__(self, artifact: Artifact, device: torch.device) -> None:
        super().__init__(artifact, _opened(artifact, generator.load_generator), device)
        if self.autoencoder is not None:
            self.network = Decoded(self.network, self.autoencoder).eval()

    def __call__(
        self, latents: Array, labels: int | Sequence[int] | Array,
        fine: int | Sequence[int] | Array | None = None, above: int = 0, guidance: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Latents (n, c, b, b) and class numbers (n,), or one -> images (n, 3, r, r), float.

        Images are nominally in [-1, 1], not clamped. Gradients flow to the latents. With ``fine``,
        blocks above the resolution ``above`` see these classes instead. ``guidance`` is the weight
        that a generator is told that takes one; 1 is none.

        Raises:
            PagodaError: latents of another shape, an unknown class, or a weight that the generator
                does not know.
        """
        z = self._latents(latents)
        y = self.labels(labels, len(z))
        finer = None if fine is None else self.labels(fine, len(z))
        check_weight(str(self.artifact.path), self.card.get(generator.TOLD), guidance)
        omega = None if guidance == 1 else z.new_full((len(z),), guidance)
        images: Tensor = self.network(z, y, finer, above, omega)
        return images

    def sample(
        self, classes: Classes = None, seeds: int | Iterable[int] = range(8), *,
        truncation: float | None = None, guidance: float = 1.0,
    ) -> np.ndarray:  # fmt: skip
        """Images of every seed in every class, class by class.

        Args:
            classes: by number or name; None: all.
            seeds: whole numbers from 0; the same latents in every class.
            truncation: most that the norm of a latent may be, as a multiple of sqrt(d); None: as
                drawn.
            guidance: weight that a generator is told that takes one; 1 is none.

        Returns:
            (classes * seeds, 3, r, r) uint8.

        Raises:
            PagodaError: an unknown class, a seed that is none, a weight that is not known.
        """
        draws = self.draws(classes, seeds, truncation)
        return _read(self.sampler(draws, guidance=guidance))

    def sampler(self, draws: Draws, *, guidance: float = 1.0) -> Sampler:
        """The samples of these draws, as the evaluation reads them."""
        codes = getattr(self.network, "generator", self.network)  # the sampler decodes
        return one_step(self.artifact, draws, network=lambda: codes, guidance=guidance,
                        autoencoder=self.autoencoder)  # fmt: skip


class Teacher(Model):
    """A diffusion teacher: an ODE from latents to images, and back.

    Attributes:
        inversion: how :meth:`invert` solves it: as the teacher's run did (its ``latents`` are
            beside it, or its card says it); otherwise as PaGoDA does.
    """

    def __init__(self, artifact: Artifact, device: torch.device) -> None:
        super().__init__(artifact, _opened(artifact, denoiser.load_denoiser), device)
        self.inversion = inversion(artifact)
        self.schedule = schedule(artifact)

    def __call__(
        self, latents: Array, labels: int | Sequence[int] | Array, *, steps: int | None = None,
        guidance: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Latents (n, c, h, w), standard normal, and class numbers -> images (n, 3, b, b), float.

        Args:
            latents: standard normal, not times sigma_max.
            labels: class numbers (n,), or one for all.
            steps: noise levels of Heun's method; None: those of :attr:`inversion`.
            guidance: weight of the classes (section 4); 1 is none.

        Raises:
            PagodaError: as of :meth:`Generator.__call__`, or guidance of a teacher that was told
                every class.
        """
        z = self._latents(latents)
        check_label_dropout(str(self.artifact.path), self.card, guidance)
        steps = self.inversion["steps"] if steps is None else steps
        solve = heun(self.network, self.schedule, steps, guidance)
        made = solve(z, self.labels(labels, len(z)), np.empty(0))
        return made if self.autoencoder is None else self.autoencoder.decode(made)

    def sample(
        self, classes: Classes = None, seeds: int | Iterable[int] = range(8), *,
        steps: int | None = None, guidance: float | Guidance = 1.0,
        truncation: float | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Images of every seed in every class, class by class.

        Arguments as of :meth:`Generator.sample`, and those of a call; (n, 3, b, b) uint8."""
        draws = self.draws(classes, seeds, truncation)
        return _read(self.sampler(draws, steps=steps, guidance=guidance))

    def sampler(
        self, draws: Draws, *, steps: int | None = None, guidance: float | Guidance = 1.0
    ) -> Sampler:
        """The samples of these draws, as the evaluation reads them."""
        steps = self.inversion["steps"] if steps is None else steps
        return teacher(self.artifact, draws, steps, guidance, network=lambda: self.network,
                       autoencoder=self.autoencoder)  # fmt: skip

    @torch.no_grad()
    def invert(
        self, images: Array, labels: int | Sequence[int] | Array, *,
        keys: Sequence[int] | None = None, run_seed: int = 0, **settings: Any,
    ) -> Tensor:  # fmt: skip
        """Images -> their latents (n, c, h, w), in the units of :meth:`latents`.

        The probability-flow ODE upwards (section 3.1). The latents are those that generators of
        the same run were distilled from: ``generator(teacher.invert(x, y), y)`` is nearly ``x``.

        Args:
            images: (n, 3, b, b), uint8 or float in [-1, 1].
            labels: class numbers (n,), or one for all.
            keys: (n,) whole numbers, None: 0, 1, ...; with ``run_seed`` the seeds of the noise that
                is added first where the settings say so.
            settings: in place of those of :attr:`inversion`: ``steps``, ``solver``, ``noise`` (its
                standard deviation), ``clamp`` (the denoiser to [-1, 1]), ``guidance``.

        Raises:
            PagodaError: images of another size or type, an unknown class or setting.
        """
        if unknown := sorted(set(settings) - set(PAPER_INVERSION)):
            known = ", ".join(PAPER_INVERSION)
            raise PagodaError(f"invert knows no {unknown[0]}; it takes {known}")
        how = self.inversion | settings
        if how["clamp"] not in (True, False):
            raise PagodaError(f"clamp = {how['clamp']!r}; it must be True or False")
        check_label_dropout(str(self.artifact.path), self.card, how["guidance"])
        x, sigma = self._images(images), self.schedule
        y = self.labels(labels, len(x))
        if self.autoencoder is not None:
            x = in_calls(self.autoencoder.encode, self.batch, x)
        start = how["noise"] or sigma["sigma_min"]
        if how["noise"]:
            x = dithered(x, how["noise"], run_seed, keys_of(keys, len(x)))
        grid = edm_grid(how["steps"], start, sigma["sigma_max"], sigma["rho"])
        network = guided(self.network, how["guidance"])
        solve = clamped(network) if how["clamp"] else network

        def call(x: Tensor, y: Tensor) -> Tensor:
            x = x.contiguous(memory_format=torch.channels_last)
            return invert(solve, x, grid, y, how["solver"])

        return in_calls(call, self.batch, x, y) / grid[0].item()

    def _images(self, images: Array) -> Tensor:
        """Images in [-1, 1] on the device."""
        x = tensor(images)
        side = self.base_res
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, side, side):
            raise PagodaError(
                f"images are of shape {tuple(x.shape)}; {self.artifact.path} takes "
                f"(n, 3, {side}, {side}): cut or shrink them to {side} pixels a side first"
            )
        return as_float(x, self.device)


def _opened(artifact: Artifact, load: Callable[..., nn.Module]) -> nn.Module:
    """The network that ``load`` makes of an artifact."""
    with NoRandomValues():
        return artifact.network(load)


def _read(sampler: Sampler) -> np.ndarray:
    return sampler.read(np.arange(len(sampler)))
