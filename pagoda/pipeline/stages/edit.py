"""What ``pagoda edit`` does: read images, edit them, write the answers as one picture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from pagoda import outputs
from pagoda.data.pixels import to_uint8
from pagoda.editing import edits
from pagoda.editing.edits import Edited
from pagoda.editing.latents import Shell, cached_shell
from pagoda.editing.posterior import Langevin
from pagoda.editing.search import Search
from pagoda.errors import PagodaError
from pagoda.models import Generator, Teacher, load
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.progress import log_line
from pagoda.pipeline.stages.sample import is_ours, write_picture
from pagoda.provenance import latents_beside, teacher_beside

_MOST = 1 << 24  # pixels of a file
NORMS = "cache", "sphere", "free"


@dataclass(frozen=True)
class Common:
    """What every edit is told; ``label`` as it was typed."""

    source: str
    images: list[Path]
    out: Path
    label: str
    teacher: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class Searched:
    """How a latent is looked for; ``steps`` None: as the edit would have it."""

    steps: int | None = None
    lr: float = 0.1
    restarts: int = 1
    answers: int = 1
    langevin: bool = False
    norm: str = "cache"

    def settings(self, generator: Generator, always: bool = True) -> dict[str, Any]:
        """Arguments of :func:`pagoda.editing.edits.solve`.

        Args:
            generator: beside whose run's latents their norms are looked for.
            always: search even if nothing was said of it.

        Raises:
            PagodaError: an unknown norm, or a search that is none.
        """
        several = self.langevin or self.answers * self.restarts > 1
        wanted = always or several or self.steps is not None
        search = Search(self.steps or Search.steps, self.lr) if wanted else None
        return {"search": search, "restarts": self.restarts, "answers": self.answers,
                "langevin": Langevin() if self.langevin else None,
                "shell": _shell(generator, self.norm)}  # fmt: skip


def inpaint_files(common: Common, how: Searched, mask: Path, seam: int, paste: bool) -> None:
    """Fill the holes of files.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    check_out(common.out)
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
    check_out(common.out)
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
    check_out(common.out)
    generator, teacher, label = _opened(common)
    assert teacher is not None
    targets = generator.numbers([_class(part) for part in to.split(",")])
    images = read_images(common.images)
    began = time.perf_counter()
    made = [edits.transfer(generator, teacher, images, label, y, seed=common.seed) for y in targets]
    whole = Edited(torch.cat([m.images for m in made], 1), made[0].latents, 1)
    _write(
        common, whole, began, {"edit": "transfer", "to": [generator.classes[y] for y in targets]}
    )


def interpolate_files(common: Common, frames: int) -> None:
    """A path between two files.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    check_out(common.out)
    if len(common.images) != 2:
        raise PagodaError(f"a path is between 2 images, not {len(common.images)}")
    generator, teacher, label = _opened(common)
    assert teacher is not None
    images = edits.as_images(read_images(common.images), None, teacher.device)
    began = time.perf_counter()
    z = edits.inverted(teacher, images, label, common.seed)
    path = edits.interpolate(generator, z[:1], z[1:], label, frames)
    _write(common, path, began, {"edit": "interpolate", "frames": frames})


def check_out(out: Path) -> None:
    """Refuse before any work a place where the picture may not go.

    Raises:
        PagodaError: another ending than .png, or something else is there.
    """
    if out.suffix != ".png":
        raise PagodaError(f"--out {out}; it is a picture, FILE.png")
    outputs.check_file(out)
    if out.exists() and not is_ours(out):
        raise PagodaError(f"{out} is not of pagoda's making, so it stays; choose another place")


def read_images(files: list[Path], side: int | None = None) -> np.ndarray:
    """RGB files of one size, (n, 3, r, r) uint8.

    Args:
        files: PNG, JPEG, WebP or BMP.
        side: that they must have; None: any, the same for all.

    Raises:
        PagodaError: one line: no picture, another mode or size.
    """
    pictures = []
    for file in files:
        image = _opened_image(file)
        if image.mode != "RGB":
            raise PagodaError(
                f"{file} is of mode {image.mode}, not RGB; convert it first (transparency and "
                "palettes are not guessed)"
            )
        pictures.append(np.asarray(image).transpose(2, 0, 1))
        wanted = (side, side) if side else pictures[0].shape[1:]
        if pictures[-1].shape[1:] != wanted or wanted[0] != wanted[1]:
            size = f"{image.width} x {image.height}"
            need = f"{side} x {side} are needed" if side else "squares of one size are needed"
            raise PagodaError(f"{file} has {size} pixels; {need}: cut or shrink it first")
    return np.stack(pictures)


def read_mask(file: Path, side: int) -> np.ndarray:
    """A mask, (side, side) of 1 (white, kept) and 0 (black, a hole).

    Raises:
        PagodaError: one line: no picture, another size, greys, no hole, or nothing but holes.
    """
    image = _opened_image(file)
    if image.size != (side, side):
        raise PagodaError(
            f"{file} has {image.width} x {image.height} pixels; the mask is as large as the "
            f"images, {side} x {side}"
        )
    values = np.asarray(image.convert("L"))
    if not np.isin(values, (0, 255)).all():
        raise PagodaError(f"{file} is no mask: it has greys; white is kept, black is a hole")
    if (values > 0).all():
        raise PagodaError(
            f"{file} has no hole: all of it is white, which is kept; paint some black"
        )
    if not values.any():
        raise PagodaError(f"{file} is all black: nothing is kept; paint white what is known")
    return np.asarray(values > 0, np.float32)


def _opened_image(file: Path) -> Image.Image:
    try:
        with Image.open(file, formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            if image.width * image.height > _MOST:
                raise PagodaError(f"{file} has {image.width} x {image.height} pixels; shrink it")
            image.load()
            return image.copy()
    except FileNotFoundError as error:
        raise PagodaError(f"there is no file {file}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PagodaError(f"{file} is no PNG, JPEG, WebP or BMP that can be read") from error


def _opened(common: Common, needed: bool = True) -> tuple[Generator, Teacher | None, int]:
    """Generator, its teacher (where it is needed, or named), and number of the images' class."""
    device = pick_device()
    generator = load(common.source, device)
    if not isinstance(generator, Generator):
        raise PagodaError(f"{common.source} is a teacher; edits are made with a generator")
    label = generator.numbers([_class(common.label)])[0]
    if common.teacher is None and not needed:
        return generator, None, label
    beside = None if common.teacher is not None else teacher_beside(generator.artifact)
    path = beside.path if beside else common.teacher
    if path is None:
        raise PagodaError(
            f"the teacher of {common.source} is not in its run's folder; name it with --teacher"
        )
    teacher = load(path, device)
    if (
        not isinstance(teacher, Teacher)
        or teacher.base_res != generator.base_res
        or (teacher.num_classes != generator.num_classes)
    ):
        raise PagodaError(
            f"{path} is no teacher of {common.source}, whose latents have {generator.base_res} "
            f"pixels a side and which knows {generator.num_classes} classes"
        )
    return generator, teacher, label


def _class(text: str) -> int | str:
    spelled = text.strip()
    return int(spelled) if spelled.isdecimal() else spelled


def _shell(generator: Generator, norm: str) -> Shell | None:
    if norm not in NORMS:
        raise PagodaError(f"--norm {norm}; it is one of {', '.join(NORMS)}")
    if norm == "free":
        return None
    beside = latents_beside(generator.artifact) if norm == "cache" else None
    return cached_shell(beside) if beside else Shell()


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
