"""The sources of images: one file each in :mod:`pagoda.data.sources`, found by listing them.

Such a file holds ``SOURCE``, a :class:`Source`. Its name becomes a choice of ``data.source``; the
checks of the configuration, the doctor and scoring go by what it declares. Nothing is imported
before it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pagoda.errors import PagodaError
from pagoda.extras import part

if TYPE_CHECKING:
    from pagoda.data.base import ImageSource, Pictures

PACKAGE = "pagoda.data.sources"

SPLITS = ("train", "test")
"""Names of the splits."""


@dataclass(frozen=True)
class Wanted:
    """One split of a source.

    Attributes:
        split: ``train`` or ``test``.
        path: folder or file; for ``torchvision`` the folder it downloads to (None: ``data``).
        hub: a torchvision class or a Hugging Face id.
        num_classes: number of classes expected, 1 makes one of all; None: as many as there are.
        limit: keep the first ``limit`` images; classes take turns, so they are balanced.
        test_share: fraction of each class that is held out where the source has no splits.
        exif: turn images as their EXIF orientation says.
        render_res, variety, seed: of the embedded set.
        root: folder in which a relative path is looked for that is not here.
    """

    split: str
    path: str | None = None
    hub: str | None = None
    num_classes: int | None = None
    limit: int | None = None
    test_share: float | None = None
    exif: bool = False
    render_res: int = 64
    variety: float = 1.0
    seed: int = 0
    root: Path = Path()

    def found(self, name: str | None) -> str:
        """A path, here or in :attr:`root`; whatever is in neither stays as it is."""
        name = name or ""
        there = not Path(name).exists() and (self.root / name).exists()
        return str(self.root / name) if there else name


@dataclass(frozen=True)
class Source:
    """What a source is.

    Attributes:
        open: opens one split, labelled.
        needs: the key of ``data`` that must not be null.
        fetched: whether it comes over the network, so that only a run opens it.
        drawn: whether it is drawn at ``data.render_res`` instead of stored.
        classes: the number of classes, where that is fixed.
        endings: of names of files that ``--images`` opens with it; ``/`` is a folder.
        unlabelled: its images without labels, of a path and perhaps of a split, for scoring.
    """

    open: Callable[[Wanted], ImageSource]
    needs: Literal["path", "hub"] | None = None
    fetched: bool = False
    drawn: bool = False
    classes: int | None = None
    endings: tuple[str, ...] = ()
    unlabelled: Callable[[Path, str | None], Pictures] | None = None


def names() -> tuple[str, ...]:
    """Names of the sources there are."""
    package = importlib.import_module(PACKAGE)
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))


def find(name: str) -> Source:
    """The source of that name.

    Raises:
        PagodaError: if there is none.
    """
    if name not in names():
        raise PagodaError(f"data.source = {name!r}; it must be one of {', '.join(names())}")
    source = getattr(part(f"{PACKAGE}.{name}"), "SOURCE", None)
    if not isinstance(source, Source):
        raise PagodaError(f"{PACKAGE.replace('.', '/')}/{name}.py has no SOURCE, a Source")
    return source


def reading(ending: str) -> str | None:
    """The source whose files end so, if there is one; a file that is broken reads nothing.

    Raises:
        PagodaError: there are two.
    """
    found = []
    for name in names():
        with suppress(PagodaError):
            found += [name] if ending.endswith(find(name).endings) else []
    if len(found) > 1:
        raise PagodaError(f"{' and '.join(found)} both read files that end like {ending}")
    return found[0] if found else None


def open_source(name: str, wanted: Wanted) -> ImageSource:
    """Open one split of a source.

    Raises:
        PagodaError: one line saying what is wrong with the data and what to do.
    """
    if wanted.split not in SPLITS:
        raise PagodaError(f"split = {wanted.split!r}; it must be one of {', '.join(SPLITS)}")
    source = find(name)
    if source.needs and getattr(wanted, source.needs) is None:
        raise PagodaError(f"data.{source.needs} is null; data.source = {name} needs it")
    return source.open(wanted)
