"""Held-out images to be edited, with the models that edit and the network that measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pagoda import artifacts
from pagoda.config import VariantConfig
from pagoda.config.sections import EditConfig
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_float, to_uint8
from pagoda.data.store import open_images
from pagoda.diffusion.solver import edm_grid
from pagoda.editing.latents import cached_shell
from pagoda.editing.posterior import dps
from pagoda.editing.search import Search
from pagoda.errors import PagodaError
from pagoda.evaluation.evaluator import Evaluator, evaluate
from pagoda.evaluation.features.classifier import NAME, classifier_of
from pagoda.evaluation.metrics.base import Settings, needs
from pagoda.evaluation.reference import from_sample, reference_card
from pagoda.evaluation.streaming import StoredImages, collect
from pagoda.models import Generator, Teacher, load
from pagoda.pipeline.stages.made import open_made
from pagoda.rows import Row

_TRAINING = 8192  # training images, of which the nearest is an answer
_AT_ONCE = 512  # of these in memory
_LEARNED = frozenset({"hole_distance", "whole_distance", "diversity", "target_rate", "source_rate",
                      "similarity", "path_length", "path_accuracy"})  # fmt: skip

Way = Callable[[], tuple[Tensor, int]]
"""A way to edit: images (n, 3, r, r) in [-1, 1], and evaluations of a network for each."""


@dataclass(frozen=True)
class Made:
    """What a way to edit has made."""

    name: str
    images: np.ndarray  # (n, 3, r, r) uint8
    calls: int
    seconds: float  # an image


class Held:
    """A block of held-out images at one resolution, and what edits and measures them."""

    def __init__(self, config: VariantConfig, resolution: int, device: torch.device) -> None:
        self.config, self.resolution, self.device = config, resolution, device
        self.data = open_made(config, f"data/{resolution}")
        generator = load(open_made(config, f"gen/{resolution}").path, device)
        teacher = load(open_made(config, "teacher").path, device)
        assert isinstance(generator, Generator) and isinstance(teacher, Teacher)
        self.generator, self.teacher = generator, teacher
        self.shell = cached_shell(open_made(config, "latents"))
        self.features = open_made(config, "features")
        self.extractor = classifier_of(self.features, device, config.evaluate.batch)
        labels, n = self.data.array("test_labels"), self.section.images
        first = config.seed * n
        if first + n > len(labels):
            raise PagodaError(
                f"seed {config.seed} has no block of {n} held-out images of its own, there are "
                f"{len(labels)}; give fewer seeds, or studies.edit.images a lower number"
            )
        self.keys = list(range(first, first + n))
        self.all_labels = np.asarray(labels)
        self.labels = self.all_labels[self.keys]
        self.truth = self.read(self.keys)
        self.images = to_float(torch.from_numpy(self.truth)).to(device)
        self.evaluator = self._evaluator()

    @property
    def section(self) -> EditConfig:
        """Settings of the edits."""
        return self.config.studies.edit

    @property
    def own(self) -> dict[str, Any]:
        """What every edit is told."""
        return {"seed": self.config.seed, "keys": self.keys}

    @property
    def search(self) -> Search:
        """How latents are looked for."""
        return Search(self.section.steps, self.section.lr)

    def read(self, rows: list[int]) -> np.ndarray:
        """Held-out images, uint8, in the order asked for."""
        return np.array(open_images(self.data, "test")[np.asarray(rows)])

    def prior(self, stream: str = "prior", keys: Sequence[int] | None = None) -> Tensor:
        """A latent of the prior for each image, or each key."""
        base, of = self.teacher.base_res, np.array(self.keys if keys is None else keys)
        z = standard_normal(self.config.seed, of, (3, base, base), stream)
        return torch.from_numpy(z).to(self.device)

    @torch.no_grad()
    def decoded(self, z: Tensor, labels: np.ndarray | None = None) -> Tensor:
        """Images of latents, in the images' own classes or others."""
        return self.generator(z, self.labels if labels is None else labels)

    def seen_by(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, d) and most likely class (n,) of images."""
        found = self.extractor(images)
        assert found.logits is not None
        return found.pooled, found.logits.argmax(1)

    def rows(self, name: str, nfe: int | None, values: dict[str, float], n: int) -> list[Row]:
        """A row a value; the protocol says the features where they matter, and the number."""
        return [
            Row(metric=key, protocol=f"{key}_{NAME if key in _LEARNED else 'pixels'}_{n}",
                value=float(value), n=n, generator=name, resolution=self.resolution, nfe=nfe,
                seed=self.config.seed)
            for key, value in values.items()
        ]  # fmt: skip

    def realism(self, made: Made) -> list[Row]:
        """Fréchet distance to held-out images that were not edited, and the time."""
        facts: dict[str, Any] = {
            "resolution": self.resolution, "nfe": made.calls, "seed": self.config.seed
        }  # fmt: skip
        held = {made.name: StoredImages("edits", made.images)}
        found = evaluate(held, [self.evaluator], Settings(), facts)
        n = len(made.images)
        took = Row(metric="seconds_per_image", protocol=f"seconds_per_edit_{n}",
                   value=made.seconds, n=n, generator=made.name, **facts)  # fmt: skip
        return [*found, took]

    def _evaluator(self) -> Evaluator:
        pixels, used = open_images(self.data, "test"), set(self.keys)
        kept = np.array([i for i in range(len(pixels)) if i not in used])
        images = StoredImages(f"{self.data.path} (test)", pixels, kept=kept)
        sample = collect(images, [(self.extractor, needs(("fd",)))])[0]
        which = artifacts.digest({"of": self.data.fingerprint, "rows": kept.tolist()})
        card = reference_card(
            self.extractor, 0, images=which, recipe=self.data.card()["recipe"],
            resolution=self.resolution, split="test", n=len(kept),
        )  # fmt: skip
        return Evaluator(self.extractor, from_sample(images.where, sample, card), ("fd",))


def timed(name: str, way: Way) -> Made:
    """What a way makes, as pixels, and how long it takes."""
    began = time.perf_counter()
    images, calls = way()
    pixels = to_uint8(images, name).cpu().numpy()
    return Made(name, pixels, calls, (time.perf_counter() - began) / len(pixels))


def changed(name: str, made: Made, change: Callable[[Tensor], Tensor]) -> Made:
    """What a way has made, changed afterwards at no cost to speak of."""
    images = change(to_float(torch.from_numpy(made.images)))
    return replace(made, name=name, images=to_uint8(images, name).numpy())


def nearest(held: Held, seen: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The training image that is nearest to each image in what is seen.

    Args:
        held: the images.
        seen: what image i of the block lets one see of any images.
    """
    stored, n = open_images(held.data, "train"), len(held.images)
    least = torch.full((n,), torch.inf, device=held.device)
    found = torch.empty_like(held.images)
    for start in range(0, min(_TRAINING, len(stored)), _AT_ONCE):
        rows = slice(start, min(start + _AT_ONCE, _TRAINING, len(stored)))
        training = to_float(torch.from_numpy(np.array(stored[rows])).to(held.device))
        for i, image in enumerate(held.images):
            off = (seen(training, i) - seen(image[None], i)).square().flatten(1).sum(1)
            if off.min() < least[i]:
                least[i], found[i] = off.min(), training[off.argmin()]
    return found


def posterior(
    held: Held, observe: Callable[[Tensor], Tensor], seen: Tensor, labels: np.ndarray,
    keys: Sequence[int],
) -> tuple[Tensor, int]:  # fmt: skip
    """The teacher's posterior samples (DPS), enlarged (bilinear) where images are larger.

    The teacher knows images of the base size only. What is seen of an enlarged image is linear in
    the small one, too, and guides it.

    Returns:
        Images, and evaluations of the teacher for each.
    """
    t, side, section = held.teacher, held.resolution, held.section

    def large(x: Tensor) -> Tensor:
        return x if side == t.base_res else F.interpolate(
            x, (side, side), mode="bilinear", align_corners=False)  # fmt: skip

    s = t.schedule
    grid = edm_grid(section.posterior_steps, s["sigma_min"], s["sigma_max"], s["rho"])
    x = dps(
        t.network, lambda x: observe(large(x)), seen, torch.from_numpy(labels).to(held.device),
        held.prior("posterior", keys), grid, scale=section.posterior_scale, keys=np.array(keys),
        seed=held.config.seed,
    )  # fmt: skip
    return large(x), section.posterior_steps
