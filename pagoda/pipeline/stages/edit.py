"""What ``pagoda edit`` does: read images, edit them, write the answers as one picture."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pagoda import outputs
from pagoda.data.pixels import to_uint8
from pagoda.editing import edits
from pagoda.editing.edits import Edited
from pagoda.errors import PagodaError
from pagoda.models import Generator, Teacher
from pagoda.pipeline.stages.edit_inputs import (
    Searched,
    class_of,
    open_generator,
    open_teacher,
    read_images,
    read_mask,
)
from pagoda.pipeline.stages.progress import log_line
from pagoda.pipeline.stages.sample import is_ours, write_picture


@dataclass(frozen=True)
class Common:
    """What every edit is told; ``label`` as it was typed."""

    source: str
    images: list[Path]
    out: Path
    label: str
    teacher: Path | None = None
    seed: int = 0


def inpaint_files(common: Common, how: Searched, mask: Path, seam: int, paste: bool) -> None:
    """Fill the holes of files.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    check_out(common.out, [*common.images, mask])
    generator, teacher, label = _opened(common, needed=False)
    images = read_images(common.images, generator.resolution)
    kept = read_mask(mask, generator.resolution)
    settings = how.settings(generator)
    began = time.perf_counter()
    edited = edits.inpaint(generator, images, kept, label, teacher=teacher, paste=paste, seam=seam,
                           seed=common.seed, **settings)  # fmt: skip
    _write(common, edited, began, {"edit": "inpaint", "mask": str(mask), "seam": seam})


def super_resolve_files(common: Common, how: Searched, consistent: bool) -> None:
    """Enlarge files.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    check_out(common.out, common.images)
    generator, teacher, label = _opened(common)
    images = read_images(common.images)
    settings = how.settings(generator, always=False)
    began = time.perf_counter()
    edited = edits.super_resolve(generator, images, label, teacher=teacher, consistent=consistent,
                                 seed=common.seed, **settings)  # fmt: skip
    _write(common, edited, began, {"edit": "super-resolve", "consistent": consistent})


def transfer_files(common: Common, to: str) -> None:
    """Files as if they were of other classes.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    check_out(common.out, common.images)
    generator, teacher, label = _opened(common)
    assert teacher is not None
    targets = generator.numbers([class_of(part) for part in to.split(",")])
    images = read_images(common.images)
    began = time.perf_counter()
    whole = transferred(generator, teacher, images, label, targets, common.seed)
    _write(
        common, whole, began, {"edit": "transfer", "to": [generator.classes[y] for y in targets]}
    )


def transferred(
    generator: Generator, teacher: Teacher, given: np.ndarray, label: int, targets: Sequence[int],
    seed: int,
) -> Edited:  # fmt: skip
    """Images (n, 3, r, r) as if they were of each of m classes: n x m answers of one inversion.

    Raises:
        PagodaError: as of :func:`pagoda.editing.edits.transfer`.
    """
    z = edits.inverted(teacher, edits.as_images(given, None, teacher.device), label, seed)
    with torch.no_grad():
        images = torch.stack([generator(z, y) for y in targets], dim=1)
    return Edited(images, z[:, None].expand(-1, len(targets), *z.shape[1:]), 1)


def interpolate_files(common: Common, frames: int) -> None:
    """A path between two files.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    check_out(common.out, common.images)
    if len(common.images) != 2:
        raise PagodaError(f"a path is between 2 images, not {len(common.images)}")
    generator, teacher, label = _opened(common)
    assert teacher is not None
    images = edits.as_images(read_images(common.images), None, teacher.device)
    began = time.perf_counter()
    z = edits.inverted(teacher, images, label, common.seed)
    path = edits.interpolate(generator, z[:1], z[1:], label, frames)
    _write(common, path, began, {"edit": "interpolate", "frames": frames})


def check_out(out: Path, images: Sequence[Path]) -> None:
    """Refuse before any work a place where the picture may not go.

    Raises:
        PagodaError: another ending than .png, or something else is there, one of the images to
            edit too.
    """
    if out.suffix != ".png":
        raise PagodaError(f"--out {out}; it is a picture, FILE.png")
    outputs.check_file(out)
    if any(os.path.realpath(out) == os.path.realpath(file) for file in images):
        raise PagodaError(f"{out} is one of the files to edit, so it stays; choose another place")
    if out.exists() and not is_ours(out):
        raise PagodaError(f"{out} is not of pagoda's making, so it stays; choose another place")


def _opened(common: Common, needed: bool = True) -> tuple[Generator, Teacher | None, int]:
    """Generator, its teacher (where it is needed, or named), and number of the images' class."""
    generator = open_generator(common.source)
    label = generator.numbers([class_of(common.label)])[0]
    wanted = needed or common.teacher is not None
    teacher = open_teacher(generator, common.source, common.teacher) if wanted else None
    if teacher is None and needed:
        raise PagodaError(
            f"the teacher of {common.source} is not in its run's folder; name it with --teacher"
        )
    return generator, teacher, label


def _write(common: Common, edited: Edited, began: float, about: dict[str, Any]) -> None:
    """A row an image, a column an answer, without borders: pixels are the answers' own."""
    images: Tensor = to_uint8(edited.images.cpu(), common.source)
    seconds = time.perf_counter() - began
    n, k, _, height, width = images.shape
    whole = images.permute(0, 3, 1, 4, 2).reshape(n * height, k * width, 3)
    given = {"source": common.source, "images": [str(f) for f in common.images],
             "class": common.label, "seed": common.seed, "calls": edited.calls}  # fmt: skip
    write_picture(common.out, Image.fromarray(whole.numpy()), about | given)
    answers = f"{n} x {k} pictures of {width} x {height} pixels"
    calls = f"{edited.calls} call{'s' * (edited.calls > 1)} of the generator"
    log_line(f"{common.out}: {answers} in {seconds:.2f} s, {calls} an answer")
