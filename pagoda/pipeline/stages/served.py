"""What the page of ``pagoda serve`` asks of the library: pictures for what its controls say.

Nothing is computed here: generators make samples, :mod:`pagoda.editing.edits` edits, as they do for
``pagoda sample`` and ``pagoda edit``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pagoda.artifacts import MANIFEST, peek
from pagoda.data.pixels import as_float, to_uint8
from pagoda.data.resize import cut
from pagoda.editing import edits
from pagoda.editing.edits import Edited
from pagoda.editing.latents import slerp
from pagoda.editing.observations import averaged
from pagoda.errors import PagodaError
from pagoda.evaluation.samplers import base_of
from pagoda.models import Generator, Teacher
from pagoda.pipeline.stages.edit import transferred
from pagoda.pipeline.stages.edit_inputs import (
    Searched,
    open_generator,
    open_picture,
    open_teacher,
    pixels,
)

Picture = tuple[np.ndarray, str]
"""(r, r, 3) uint8, and what it is."""

MOST_SAMPLES, MOST_ANSWERS, MOST_STEPS = 256, 8, 1000
"""Of one request: others wait for it."""


@dataclass
class Served:
    """Generators of one pyramid by resolution, and their teacher.

    Attributes:
        folders: of the generators, by resolution; one is opened when it is first asked for.
        teacher: None where there is none: what needs to invert images cannot be had then.
    """

    folders: dict[int, str]
    teacher: Teacher | None
    _opened: dict[int, Generator] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """Names of the classes, as the largest generator knows them."""
        return self.generator(max(self.folders)).classes

    def generator(self, resolution: int) -> Generator:
        """The generator of a resolution.

        Raises:
            PagodaError: there is none, or its folder is damaged.
        """
        if resolution not in self.folders:
            there = ", ".join(map(str, self.folders))
            raise PagodaError(f"there is no generator at {resolution}; there are {there}")
        if resolution not in self._opened:
            self._opened[resolution] = open_generator(self.folders[resolution])
        return self._opened[resolution]

    def samples(self, resolution: int, classes: list[int], first: int, n: int) -> list[Picture]:
        """Seeds ``first``, ..., ``first + n - 1`` of every class, as ``pagoda sample`` makes them.

        Raises:
            PagodaError: no class, no such seed, or more than :data:`MOST_SAMPLES`.
        """
        g = self.generator(resolution)
        if not classes:
            raise PagodaError("no class is chosen; choose one or more")
        if not 0 < n * len(classes) <= MOST_SAMPLES:
            raise PagodaError(f"{n} x {len(classes)} pictures; one request makes 1 to "
                              f"{MOST_SAMPLES}")  # fmt: skip
        seeds = range(first, first + n)
        images = g.sample(classes, seeds)
        called = [f"{self.classes[y]} {s}" for y in classes for s in seeds]
        return list(zip(images.transpose(0, 2, 3, 1), called, strict=True))

    def between(
        self, resolution: int, seeds: tuple[int, int], classes: Sequence[int], t: float
    ) -> list[Picture]:
        """The latent a share t of the arc from one seed's to another's, decoded in each class.

        Classes are not numbers between which there are others: what is between two of them is the
        same latent in either.

        Raises:
            PagodaError: no such seed or class, or t outside [0, 1].
        """
        if not 0 <= t <= 1:
            raise PagodaError(f"there is nothing at {t:g} of the way; 0 is the first seed, 1 the "
                              "second")  # fmt: skip
        g, wanted = self.generator(resolution), list(dict.fromkeys(classes))
        a, b = g.latents(list(seeds)).split(1)
        z = slerp(a, b, torch.tensor([t])).expand(len(wanted), -1, -1, -1)
        with torch.no_grad():
            return _pictures(g(z, wanted)[:, None], [self.classes[y] for y in wanted])

    def inpaint(
        self, resolution: int, file: Path, fit: bool, painted: Sequence[Image.Image], label: int,
        how: Searched, seam: int, seed: int,
    ) -> list[Picture]:  # fmt: skip
        """Fill what is painted over; the picture with its holes comes first.

        Raises:
            PagodaError: another mode or size, or a mask without a hole or of nothing else.
        """
        _check(how)
        g = self.generator(resolution)
        image, kept = read_upload(file, (resolution,), fit), kept_of(painted, resolution)
        edited = edits.inpaint(g, image[None], kept, label, seam=seam, seed=seed,
                               **how.settings(g))  # fmt: skip
        holes = np.where(kept[..., None] > 0, image.transpose(1, 2, 0), 255).astype(np.uint8)
        return [(holes, "given"), *_answers(edited)]

    def super_resolve(
        self, resolution: int, file: Path, fit: bool, label: int, how: Searched, consistent: bool,
        seed: int,
    ) -> list[Picture]:  # fmt: skip
        """Enlarge a picture; without ``how.steps`` by inversion where there is a teacher.

        Raises:
            PagodaError: another mode, or a size that no doublings make that of the generator.
        """
        _check(how)
        g = self.generator(resolution)
        image = read_upload(file, self.small(resolution), fit)
        edited = edits.super_resolve(g, image[None], label, teacher=self.teacher, seed=seed,
                                     consistent=consistent,
                                     **how.settings(g, always=False))  # fmt: skip
        return [(image.transpose(1, 2, 0), "given"), *_answers(edited)]

    def transfer(
        self, resolution: int, file: Path, fit: bool, label: int, to: Sequence[int], seed: int
    ) -> list[Picture]:
        """A picture as if it were of other classes.

        Raises:
            PagodaError: no teacher, no class to go to, another mode or size.
        """
        if self.teacher is None:
            raise PagodaError("class transfer needs the teacher; start again with --teacher")
        if not to:
            raise PagodaError("no class to go to is chosen; choose one or more")
        g, base = self.generator(resolution), self.teacher.base_res
        image = read_upload(file, [base << i for i in range(12)], fit)
        made = transferred(g, self.teacher, image[None], label, to, seed)
        names = [self.classes[y] for y in to]
        return [(image.transpose(1, 2, 0), "given"), *_pictures(made.images, names)]

    def small(self, resolution: int) -> list[int]:
        """Sizes that become a resolution by doublings, the latents' first."""
        base = self.generator(resolution).base_res
        larger = [base << i for i in range(12) if base << i < resolution]
        return larger + [base >> i for i in range(1, 12) if base >> i > 1]

    def shrunk(self, resolution: int, label: int, seed: int) -> np.ndarray:
        """A sample of a resolution made as small as latents are, (b, b, 3)."""
        g = self.generator(resolution)
        if resolution == g.base_res:
            raise PagodaError(f"nothing is smaller than {resolution}, the size of latents; choose "
                              "another resolution")  # fmt: skip
        x = as_float(torch.from_numpy(g.sample(label, seed)), g.device)
        return _pixels(averaged(resolution // g.base_res).apply(x))[0]


def open_all(sources: Sequence[str], teacher: Path | None) -> Served:
    """Open generators and find their teacher, and what is beside a single one.

    Beside the generator of a run lie those of the other resolutions of its pyramid, each in a
    folder that has its resolution's name.

    Raises:
        PagodaError: one line: a folder is no generator, two are of one resolution, or they take
            different latents.
    """
    opened = {source: open_generator(source) for source in sources}
    folders: dict[int, str] = {}
    for source, g in opened.items():
        if g.resolution in folders:
            raise PagodaError(f"{folders[g.resolution]} and {source} are both of {g.resolution} "
                              "pixels a side; give one of each resolution")  # fmt: skip
        folders[g.resolution] = source
    first = opened[sources[0]]
    for source, g in opened.items():
        if (g.base_res, g.num_classes) != (first.base_res, first.num_classes):
            raise PagodaError(f"{source} and {sources[0]} are not of one pyramid: their latents or "
                              "classes differ; serve them apart")  # fmt: skip
    named = next((t for s, g in opened.items() if (t := open_teacher(g, s, teacher))), None)
    folders = (_beside(first) if len(opened) == 1 else {}) | folders
    already = {g.resolution: g for g in opened.values()}
    return Served(dict(sorted(folders.items())), named, already)


def _beside(generator: Generator) -> dict[int, str]:
    """Generators of the same latents and classes in folders beside, named by their resolution."""
    own, found = generator.artifact.path, {}
    if own.name != str(generator.resolution):
        return {}
    for manifest in own.parent.glob(f"*/{MANIFEST}"):
        folder = manifest.parent
        if not folder.name.isdecimal():
            continue
        try:
            card = peek(folder, "generator").card()
        except PagodaError:  # something else, or damaged
            continue
        base = base_of(card)[0]
        side, same = base << len(card.get("levels", [])), (base, card["unet"]["num_classes"])
        if folder.name == str(side) and same == (generator.base_res, generator.num_classes):
            found[side] = str(folder)
    return found


def read_upload(file: Path, sides: Sequence[int], fit: bool) -> np.ndarray:
    """An upload, (3, r, r) uint8.

    Args:
        file: PNG, JPEG, WebP or BMP.
        sides: sizes that are asked for; any other is for the edit to refuse, where there are
            several.
        fit: bring other modes to RGB, and cut the middle square of larger pictures and shrink it
            to the first of ``sides``, by block means (the recipe ``box``).

    Raises:
        PagodaError: one line: no picture, another mode or size.
    """
    image = open_picture(file, file.name)
    if fit:
        at_home = image.width == image.height and image.width in sides
        side = image.width if at_home else sides[0]
        if min(image.size) >= side:
            image = Image.fromarray(cut(image, side, "box"))
    return pixels(image, file.name, sides[0] if len(sides) == 1 else None)


def kept_of(painted: Sequence[Image.Image], side: int) -> np.ndarray:
    """What was not painted over, (side, side) of 1 (kept) and 0 (a hole).

    Args:
        painted: layers with transparency, of any size: a pixel is a hole where any of it is
            covered.
        side: of the picture.

    Raises:
        PagodaError: nothing is painted, or all is.
    """
    kept = np.ones((side, side), np.float32)
    for layer in painted:
        alpha = layer.convert("RGBA").getchannel("A").point(lambda a: 255 * (a > 0))
        covered = np.asarray(alpha.resize((side, side), Image.Resampling.BOX))
        kept[covered > 0] = 0
    if kept.all():
        raise PagodaError("no hole is painted; paint over what is to be filled")
    if not kept.any():
        raise PagodaError("all of the picture is painted over: nothing is kept; rub some out")
    return kept


def timed(began: float, pictures: Sequence[Picture]) -> str:
    """What is said below pictures."""
    made = [image for image, called in pictures if called != "given"]
    sides = f"{made[0].shape[1]} x {made[0].shape[0]} pixels"
    return (
        f"{len(made)} picture{'s' * (len(made) > 1)} of {sides} in "
        f"{time.perf_counter() - began:.2f} s"
    )


def _check(how: Searched) -> None:
    steps = how.steps or 1
    if not (1 <= how.answers <= MOST_ANSWERS and 1 <= steps <= MOST_STEPS):
        raise PagodaError(f"{how.answers} answers of {steps} steps; a request gets at most "
                          f"{MOST_ANSWERS} of {MOST_STEPS}")  # fmt: skip


def _answers(edited: Edited) -> list[Picture]:
    k = edited.images.shape[1]
    return _pictures(edited.images, ["answer"] if k == 1 else [f"answer {i + 1}" for i in range(k)])


def _pictures(images: Tensor, names: Sequence[str]) -> list[Picture]:
    """Pictures of float images, in [-1, 1], (n, k, 3, r, r) of n k names."""
    return list(zip(_pixels(images.flatten(0, 1)), names, strict=True))


def _pixels(images: Tensor) -> np.ndarray:
    """(n, r, r, 3) uint8."""
    return to_uint8(images.detach().cpu()).permute(0, 2, 3, 1).numpy()
