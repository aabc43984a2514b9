"""The captions of an experiment's images: texts, the number of each image's, and their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pagoda.artifacts import Artifact
from pagoda.config import Config
from pagoda.config.root import project_root
from pagoda.data.captioned import image_captions, numbered
from pagoda.data.registry import SPLITS, Wanted


@dataclass(frozen=True)
class Captions:
    """Of the images of one artifact.

    Attributes:
        texts: different captions, those of training images first.
        rows: number of the caption of each image, by split.
        classes: class of each image, by split.
    """

    texts: list[str]
    rows: dict[str, np.ndarray]
    classes: dict[str, np.ndarray]

    @cached_property
    def of_training(self) -> list[str]:
        """Those of training images."""
        return self.texts[: int(self.rows["train"].max()) + 1]

    @cached_property
    def class_of(self) -> np.ndarray:
        """(captions,) the class of the first image that has the caption."""
        found = np.full(len(self.texts), -1, np.int64)
        for split in reversed(SPLITS):
            rows, first = np.unique(self.rows[split], return_index=True)
            found[rows] = self.classes[split][first]
        return found


def captions_of(config: Config, data: Artifact) -> Captions:
    """The captions of images: of training ones ``text.captions``, of held-out ones ``text.asked``.

    Raises:
        PagodaError: the images' source has none.
    """
    texts: list[str] = []
    sizes = {}
    for split in SPLITS:
        names = (data.path / f"{split}_names.txt").read_text("utf-8").splitlines()
        kind = config.text.captions if split == SPLITS[0] else config.text.held_out
        texts += image_captions(
            names, source=config.data.source, split=split, kind=kind,
            variety=config.data.variety, path=_found(config.data.path),
            file=_found(config.text.file),
        )  # fmt: skip
        sizes[split] = len(names)
    different, rows = numbered(texts)
    parts = dict(zip(SPLITS, np.split(rows, [sizes[SPLITS[0]]]), strict=True))
    labels = {split: np.asarray(data.array(f"{split}_labels")) for split in SPLITS}
    return Captions(different, parts, labels)


def _found(path: str | None) -> str | None:
    """A path, here or in the project's root."""
    return None if path is None else Wanted("train", root=project_root()).found(path)
