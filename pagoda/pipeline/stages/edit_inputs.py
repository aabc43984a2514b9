"""What an edit is given: pictures and masks, a generator and its teacher, the way to search.

``pagoda edit`` takes it from files and options, the page of ``pagoda serve`` from its controls.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pagoda.editing.latents import Shell, cached_shell
from pagoda.editing.posterior import Langevin
from pagoda.editing.search import Search
from pagoda.errors import PagodaError, denied
from pagoda.models import Generator, Teacher, load
from pagoda.pipeline.stages.device import pick_device
from pagoda.provenance import latents_beside, teacher_beside

_MOST = 1 << 24  # pixels of a file
NORMS = "cache", "sphere", "free"


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


def read_images(files: list[Path], side: int | None = None) -> np.ndarray:
    """RGB files of one size, (n, 3, r, r) uint8.

    Args:
        files: PNG, JPEG, WebP or BMP.
        side: that they must have; None: any, the same for all.

    Raises:
        PagodaError: one line: no picture, another mode or size.
    """
    pictures: list[np.ndarray] = []
    for file in files:
        wanted = pictures[0].shape[1] if pictures else side
        pictures.append(pixels(open_picture(file), str(file), wanted, given=side is not None))
    return np.stack(pictures)


def open_picture(file: Path, name: str | None = None) -> Image.Image:
    """A PNG, JPEG, WebP or BMP, in whatever mode it has.

    Args:
        file: where it is.
        name: what a message calls it; None: ``file``.

    Raises:
        PagodaError: one line: nothing is there, or no such picture, or one beyond 16 megapixels.
    """
    called = name or str(file)
    try:
        with Image.open(file, formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            if image.width * image.height > _MOST:
                raise PagodaError(f"{called} has {image.width} x {image.height} pixels; shrink it")
            image.load()
            return image.copy()
    except FileNotFoundError as error:
        raise PagodaError(f"there is no file {called}") from error
    except PermissionError as error:
        raise denied(error) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise PagodaError(f"{called} is no PNG, JPEG, WebP or BMP that can be read") from error
    except Image.DecompressionBombError as error:
        raise PagodaError(f"{called} has more pixels than {_MOST}; shrink it") from error


def pixels(image: Image.Image, name: str, side: int | None, given: bool = True) -> np.ndarray:
    """A square RGB picture as (3, r, r) uint8.

    Args:
        image: the picture.
        name: what a message calls it.
        side: r; None: any.
        given: whether that side is what the edit needs, or that of pictures before this one.

    Raises:
        PagodaError: one line: another mode or size.
    """
    if image.mode != "RGB":
        raise PagodaError(
            f"{name} is of mode {image.mode}, not RGB; convert it first (transparency and "
            "palettes are not guessed)"
        )
    if image.width != image.height or image.width != (side or image.width):
        need = f"{side} x {side} are needed" if side and given else "squares of one size are needed"
        raise PagodaError(
            f"{name} has {image.width} x {image.height} pixels; {need}: cut or shrink it first"
        )
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def read_mask(file: Path, side: int) -> np.ndarray:
    """A mask, (side, side) of 1 (white, kept) and 0 (black, a hole).

    Raises:
        PagodaError: one line: no picture, another size, greys, no hole, or nothing but holes.
    """
    image = open_picture(file)
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


def class_of(text: str) -> int | str:
    """A class by number, or by name, as it was typed."""
    spelled = text.strip()
    return int(spelled) if spelled.isdecimal() else spelled


def open_generator(source: str) -> Generator:
    """A generator, on the device of this process.

    Raises:
        PagodaError: one line: none is there, or it is a teacher.
    """
    generator = load(source, pick_device())
    if not isinstance(generator, Generator):
        raise PagodaError(f"{source} is a teacher; edits are made with a generator")
    return generator


def open_teacher(generator: Generator, source: str, folder: Path | None) -> Teacher | None:
    """The teacher that a generator grew from: the named one, or its run's.

    Args:
        generator: whose latents it has to give.
        source: what a message calls that.
        folder: of the teacher; None: what lies in the run's folder.

    Returns:
        None where none was named and none lies there.

    Raises:
        PagodaError: one line: that is no teacher of this generator.
    """
    beside = teacher_beside(generator.artifact) if folder is None else None
    path = beside.path if beside else folder
    if path is None:
        return None
    teacher = load(path, generator.device)
    if not isinstance(teacher, Teacher):
        raise PagodaError(f"{path} is a generator; --teacher names the teacher that it grew from")
    known = teacher.base_res, teacher.num_classes
    if known != (generator.base_res, generator.num_classes):
        raise PagodaError(
            f"{path} is no teacher of {source}, whose latents have {generator.base_res} "
            f"pixels a side and which knows {generator.num_classes} classes"
        )
    return teacher


def _shell(generator: Generator, norm: str) -> Shell | None:
    if norm not in NORMS:
        raise PagodaError(f"--norm {norm}; it is one of {', '.join(NORMS)}")
    if norm == "free":
        return None
    beside = latents_beside(generator.artifact) if norm == "cache" else None
    return cached_shell(beside) if beside else Shell()
