"""The four edits of PaGoDA (section 5.2) with a generator and the teacher that it grew from.

    >>> g, t = pagoda.load("runs/smoke/b8/gen/32"), pagoda.load("runs/smoke/b8/teacher")
    >>> edited = inpaint(g, images, kept, labels, teacher=t)      # edited.images (n, 1, 3, 32, 32)

Images are (n, 3, h, w), uint8 or float in [-1, 1]; labels class numbers (n,), or one for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pagoda.calls import keys_of, tensor
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import as_float
from pagoda.editing.latents import Shell, slerp
from pagoda.editing.observations import (
    Observation,
    averaged,
    check_kept,
    masked,
    pasted,
    smoothly_filled,
)
from pagoda.editing.posterior import Langevin, walk
from pagoda.editing.search import Search, best_of, optimise
from pagoda.errors import PagodaError
from pagoda.models import Array, Generator, Teacher

Labels = int | Sequence[int] | Array
_KEYS = (1 << 63) - 1


@dataclass(frozen=True)
class Edited:
    """Answers to what was asked.

    Attributes:
        images: (n, k, 3, r, r) in [-1, 1], k answers to each of n questions.
        latents: (n, k, 3, b, b) that gave them, before anything was pasted.
        calls: evaluations of the generator an answer, with or without their gradient.
    """

    images: Tensor
    latents: Tensor
    calls: int


def inpaint(
    generator: Generator, images: Array, kept: Array, labels: Labels, *,
    teacher: Teacher | None = None, search: Search | None = None, restarts: int = 1,
    answers: int = 1, langevin: Langevin | None = None, shell: Shell | None = None,
    paste: bool = True, seam: int = 0, seed: int = 0, keys: Sequence[int] | None = None,
) -> Edited:  # fmt: skip
    """Fill the holes of images: y = m x, answered as of :func:`solve`.

    Args:
        generator: of images of this size.
        images: (n, 3, r, r); what is in the holes does not matter.
        kept: mask m (r, r), or (n, 1, r, r) for one each: 1 is kept, 0 a hole. A mask of ones
            gives the images back.
        labels: classes of the images.
        teacher: begins at the inverted latent of images whose holes are filled from around them;
            None: at latents of ``seed``.
        search, restarts, answers, langevin, shell, seed, keys: as of :func:`solve`.
        paste: put what is kept back at the end.
        seam: pixels over which that is blended (:func:`.observations.pasted`).

    Raises:
        PagodaError: images of another size or type, a mask of another size or that keeps nothing,
            an unknown class, a seam that the images have no room for.
    """
    x = as_images(images, generator.resolution, generator.device)
    if not 0 <= seam <= generator.resolution:
        raise PagodaError(f"seam = {seam}; it must be from 0 to {generator.resolution} pixels")
    mask = check_kept(tensor(kept).to(x.device), x)
    start = None
    if teacher is not None:
        start = inverted(teacher, smoothly_filled(x, mask), labels, seed, keys)
    found = solve(
        generator, masked(mask), x * mask, labels, start=start, search=search, restarts=restarts,
        answers=answers, langevin=langevin, shell=shell, seed=seed, keys=keys,
    )  # fmt: skip
    if not paste:
        return found
    flat = pasted(found.images.transpose(0, 1).flatten(0, 1), x.repeat(answers, 1, 1, 1),
                  mask.expand(len(x), -1, -1, -1).repeat(answers, 1, 1, 1), seam)  # fmt: skip
    made = flat.unflatten(0, (answers, -1)).transpose(0, 1)
    return Edited(made, found.latents, found.calls)


def super_resolve(
    generator: Generator, images: Array, labels: Labels, *, teacher: Teacher | None = None,
    search: Search | None = None, restarts: int = 1, answers: int = 1,
    langevin: Langevin | None = None, shell: Shell | None = None, consistent: bool = False,
    seed: int = 0, keys: Sequence[int] | None = None,
) -> Edited:  # fmt: skip
    """Images whose blocks have the means that are given: y = mean of blocks of x.

    With a ``teacher``, one answer and nothing said of a search, nothing is optimised: y is brought
    to the teacher's size, inverted, and decoded by the grown generator (PaGoDA, section 5.2).

    Args:
        generator: of the images that are wanted.
        images: (n, 3, h, h), h the generator's resolution over 2, 4, 8, ...
        labels: classes of the images.
        teacher: inverts; None: a search from latents of ``seed``.
        search, restarts, answers, langevin, shell, seed, keys: as of :func:`solve`.
        consistent: change the answer by as little as makes its means equal to y.

    Raises:
        PagodaError: images of another size or type, an unknown class.
    """
    x = as_images(images, None, generator.device)
    factor = scale_of(tuple(x.shape[2:]), generator.resolution)
    observation = averaged(factor)
    start = None if teacher is None else inverted(teacher, x, labels, seed, keys)
    told = search is not None or langevin is not None or answers * restarts > 1
    if start is not None and not told:
        with torch.no_grad():
            found = Edited(generator(start, labels)[:, None], start[:, None], 1)
    else:
        found = solve(
            generator, observation, x, labels, start=start, search=search, restarts=restarts,
            answers=answers, langevin=langevin, shell=shell, seed=seed, keys=keys,
        )  # fmt: skip
    if not consistent:
        return found
    seen = x[:, None].expand(-1, found.images.shape[1], -1, -1, -1).flatten(0, 1)
    made = observation.consistent(found.images.flatten(0, 1), seen)
    return Edited(made.view_as(found.images), found.latents, found.calls)


@torch.no_grad()
def transfer(
    generator: Generator, teacher: Teacher, images: Array, source: Labels, target: Labels, *,
    seed: int = 0, keys: Sequence[int] | None = None,
) -> Edited:  # fmt: skip
    """The images as if they were of another class: G(E(x, source), target).

    Dual diffusion implicit bridges (Su et al. 2023) with one step for the way down.

    Args:
        generator: decodes.
        teacher: encodes.
        images: (n, 3, h, h), h the teacher's size times 1, 2, 4, ...
        source: the images' classes.
        target: the wanted classes.
        seed, keys: of the noise that the inversion adds, where it adds any.

    Raises:
        PagodaError: images of another size or type, an unknown class.
    """
    z = inverted(teacher, as_images(images, None, teacher.device), source, seed, keys)
    return Edited(generator(z, target)[:, None], z[:, None], 1)


@torch.no_grad()
def interpolate(
    generator: Generator, first: Array, second: Array, labels: Labels, frames: int = 9
) -> Edited:
    """Images along the arc between latents (:func:`.latents.slerp`), both ends among them.

    Args:
        generator: decodes.
        first, second: latents (n, 3, b, b), as ``generator.latents`` or ``teacher.invert`` give.
        labels: classes in which the arcs are decoded.
        frames: k, 2 or more.

    Raises:
        PagodaError: fewer than 2 frames, latents of another shape, an unknown class.
    """
    if frames < 2:
        raise PagodaError(f"{frames} frames have no ends; give 2 or more")
    a, b = (tensor(z).to(generator.device) for z in (first, second))
    if a.shape != b.shape:
        raise PagodaError(f"latents are of shapes {tuple(a.shape)} and {tuple(b.shape)}; use equal")
    steps = torch.linspace(0, 1, frames)
    z = torch.stack([slerp(a, b, t.expand(len(a))) for t in steps], dim=1)
    images = torch.stack([generator(z[:, i], labels) for i in range(frames)], dim=1)
    return Edited(images, z, 1)


@torch.no_grad()
def mix_classes(
    generator: Generator, latents: Array, coarse: Labels, fine: Labels, above: int
) -> Tensor:
    """Images (n, 3, r, r) whose blocks above a resolution see another class.

    What a grown generator allows of style mixing (Karras et al. 2019): its latent enters at the
    base resolution only, so that two latents cannot be mixed over resolutions, but the class enters
    every block.

    Args:
        generator: with at least one doubling.
        latents: (n, 3, b, b).
        coarse: class of the blocks up to the resolution ``above``.
        fine: class of the blocks above it.
        above: the base resolution, or one below the generator's own.

    Raises:
        PagodaError: no level begins above that resolution; as of a call of the generator.
    """
    base, top = generator.base_res, generator.resolution
    allowed = [base << i for i in range((top // base).bit_length() - 1)]
    if above not in allowed:
        raise PagodaError(
            f"no level of {generator.artifact.path} begins above {above}; levels begin above "
            f"{', '.join(map(str, allowed)) or 'none: it was never grown'}"
        )
    return generator(latents, coarse, fine=fine, above=above)


def solve(
    generator: Generator, observation: Observation, seen: Tensor, labels: Labels, *,
    start: Tensor | None = None, search: Search | None = None, restarts: int = 1, answers: int = 1,
    langevin: Langevin | None = None, shell: Shell | None = None, seed: int = 0,
    keys: Sequence[int] | None = None,
) -> Edited:  # fmt: skip
    """Images of the generator that are seen as y under any linear observation y = A(x).

    All searches run side by side: give fewer images where memory is short.

    Args:
        generator: G.
        observation: A.
        seen: y, (n, ...), on the generator's device.
        labels: classes.
        start: latents (n, 3, b, b) at which the first search begins; others, and all without it,
            begin at latents of the prior.
        search: how; None: :class:`.search.Search` as it is.
        restarts: searches an answer, of which the one that y is nearest to counts.
        answers: k.
        langevin: walk on from there, for answers that differ as the posterior does.
        shell: norms that latents are kept to; None: any.
        seed: of all noise.
        keys: (n,) whole numbers, which part of the noise each image has; None: 0, 1, ...

    Returns:
        (n, k, ...) answers.

    Raises:
        PagodaError: no answer or no search is asked for, or an unknown class.
    """
    if restarts < 1 or answers < 1:
        raise PagodaError(f"{answers} answers of {restarts} searches each; both are 1 or more")
    how, n, each = search or Search(), len(seen), answers * restarts
    first = keys_of(keys, n).tolist()
    if max(first, default=0) > _KEYS // each:
        raise PagodaError(f"there is no key {max(first)} with {each} searches an image; take less")
    of = each * np.array(first, np.int64)[:, None]
    of = (of + np.arange(each)).ravel()
    shape = generator.latent_shape
    z = torch.from_numpy(standard_normal(seed, of, shape, "start")).to(seen.device)
    if start is not None:
        z[::each] = start
    y = generator.labels(labels, n).repeat_interleave(each)
    found = optimise(generator, observation.apply, seen.repeat_interleave(each, 0), y, z,
                     search=how, shell=shell, keys=of, seed=seed)  # fmt: skip
    best, calls = best_of(restarts, found), how.steps * restarts
    images, latents = best.images, best.latents
    if langevin is not None:
        latents = walk(generator, observation.apply, seen.repeat_interleave(answers, 0),
                       y[::restarts], latents, how=langevin, keys=of[::restarts],
                       seed=seed)  # fmt: skip
        with torch.no_grad():
            images = generator(latents, y[::restarts])
        calls += langevin.steps + 1
    return Edited(images.unflatten(0, (n, answers)), latents.unflatten(0, (n, answers)), calls)


def inverted(
    teacher: Teacher, images: Tensor, labels: Labels, seed: int = 0,
    keys: Sequence[int] | None = None,
) -> Tensor:  # fmt: skip
    """Latents (n, 3, b, b) of float images of any size, brought to the teacher's first.

    Larger ones are averaged over blocks, as its training images were; smaller ones are enlarged
    (bicubic).

    Raises:
        PagodaError: it is no teacher; as of its ``invert``.
    """
    if not isinstance(teacher, Teacher):
        raise PagodaError("teacher is no diffusion teacher, so it cannot invert images")
    side = teacher.base_res
    if images.shape[-1] > side:
        images = averaged(scale_of((side, side), images.shape[-1])).apply(images)
    elif images.shape[-1] < side:
        images = F.interpolate(images, (side, side), mode="bicubic", align_corners=False)
    return teacher.invert(images.clamp(-1, 1), labels, keys=keys, run_seed=seed)


def as_images(images: Array, side: int | None, device: torch.device) -> Tensor:
    """Square images (n, 3, r, r) as float in [-1, 1] on a device.

    Args:
        images: uint8, or float already.
        side: r; None: any.
        device: where they go.

    Raises:
        PagodaError: images of another shape or type.
    """
    x = tensor(images)
    if (
        x.ndim != 4
        or x.shape[1] != 3
        or x.shape[2] != x.shape[3]
        or x.shape[2] != (side or x.shape[2])
    ):
        wanted = f"(n, 3, {side}, {side})" if side else "(n, 3, r, r)"
        raise PagodaError(f"images are of shape {tuple(x.shape)}; {wanted} is needed")
    return as_float(x, device)


def scale_of(small: tuple[int, ...], large: int) -> int:
    """How many times a side goes into another: a power of two, 2 or more.

    Raises:
        PagodaError: it is none.
    """
    factor = large // small[0]
    if (
        small != (small[0],) * len(small)
        or factor * small[0] != large
        or factor < 2
        or (factor & (factor - 1))
    ):
        sides = ", ".join(str(large >> i) for i in range(1, large.bit_length()) if large >> i > 1)
        raise PagodaError(
            f"images of {' x '.join(map(str, small))} pixels cannot become {large} x {large} by "
            f"doublings; sides that can: {sides}"
        )
    return factor
