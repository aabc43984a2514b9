"""Scoring images of captions: what ``pagoda evaluate --captions`` adds to :mod:`.score`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pagoda.errors import PagodaError
from pagoda.evaluation.alignment import Alignment
from pagoda.evaluation.files import DIFFUSERS
from pagoda.evaluation.reference import Reference
from pagoda.evaluation.samplers import Draws, Sampler
from pagoda.evaluation.streaming import Images
from pagoda.models import Teacher, load
from pagoda.pipeline.stages.progress import log_line
from pagoda.pipeline.stages.text_lines import write_lines
from pagoda.rows import Row
from pagoda.text_to_image.encoders import reader_of
from pagoda.text_to_image.open_clip_models import ClipScorer
from pagoda.text_to_image.protocols import (
    PROTOCOLS,
    Captioned,
    Captions,
    Prompted,
    TextProtocol,
    named,
    named_score,
    read_captions,
)


@dataclass(frozen=True)
class Texts:
    """Captions of the images, and how these are scored.

    Attributes:
        file: of the captions, a line each or COCO's JSON.
        crop, side: how images are cut; None: not.
        clip: ``NAME:FILE`` of the CLIP that scores; None: none does.
        prefix: of the captions, for that CLIP.
        tokens: most of a caption that it reads.
        guidance, steps: of a model that makes the images; None: its own.
    """

    file: Path
    crop: str | None = None
    side: int | None = None
    clip: str | None = None
    prefix: str = ""
    tokens: int = 77
    guidance: float | None = None
    steps: int | None = None

    @property
    def cut(self) -> str:
        """Recipe and side, as protocols have it."""
        return "uncut" if self.crop is None else f"{self.crop}{self.side}"


def protocol_of(name: str | None) -> TextProtocol | None:
    """A named protocol.

    Raises:
        PagodaError: there is none of that name; those that there are.
    """
    if name is None or name in PROTOCOLS:
        return None if name is None else PROTOCOLS[name]
    known = "; ".join(f"{key} ({value.about})" for key, value in PROTOCOLS.items())
    raise PagodaError(f"--protocol {name}; it must be one of: {known}")


def write_captions(file: Path, n: int | None, out: Path | None) -> None:
    """The captions that ``--captions FILE`` means, a line each, to a new file or shown.

    Raises:
        PagodaError: one line: the file is none of captions, or ``out`` is in the way.
    """
    write_lines(read_captions(file, n).texts, out)


class TextScores:
    """Scores images of captions beside their features.

    Args:
        texts: how.
        n: captions that are used; None: all.
        batch: images a call of the CLIP.
        device: where it runs.

    Raises:
        PagodaError: captions or CLIP cannot be had.
    """

    def __init__(self, texts: Texts, n: int | None, batch: int, device: torch.device) -> None:
        self.texts, self.device = texts, device
        self.captions: Captions = read_captions(texts.file, n)
        self._clip: ClipScorer | None = None
        if texts.clip is not None:
            self._clip = ClipScorer(texts.clip, texts.prefix, texts.tokens, batch)

    def check(self, real: Reference) -> None:
        """Refuse real images that are known to be cut otherwise than the name would say.

        Raises:
            PagodaError: if so.
        """
        mine, theirs = self.texts.crop or "none", real.card["recipe"]
        if theirs not in (None, mine):
            raise PagodaError(
                f"{real.where} was cut by the recipe {theirs}, images of captions by {mine}; make "
                f"the reference with --crop {mine}, or give the real images themselves"
            )

    def of(self, images: Images) -> Captioned:
        """The images in the order of the captions, cut."""
        return Captioned(images, self.captions, self.texts.crop, self.texts.side)

    def alignment(self, name: str, images: Images) -> Alignment:
        """What looks at the images, by the name that rows give them, while they pass."""
        captions, side = {name: self.captions.texts}, images.resolution[0]
        return Alignment(captions, self._clip, side, self.device, readable=False)

    def named(self, rows: Sequence[Row], scores: Sequence[Row], real: Reference) -> list[Row]:
        """Rows of features and of the CLIP with protocols that say everything."""
        texts, where = self.texts, Path(real.where).stem
        found = named(rows, self.captions, texts.cut, real.card, where)
        if self._clip is None:
            return found
        clip = f"{self._clip.name}_{self._clip.fingerprint[:8]}"
        own = named_score(scores, self.captions, texts.cut, clip, texts.prefix, texts.tokens)
        return found + [replace(row, features=self._clip.fingerprint) for row in own]

    def card(self) -> dict[str, Any]:
        """What the file of results says of captions and CLIP."""
        card: dict[str, Any] = {"file": self.texts.file.name, "n": len(self.captions.texts),
                                "fingerprint": self.captions.fingerprint}  # fmt: skip
        if self._clip is not None:
            clip = {"model": self._clip.name, "weights": self._clip.fingerprint,
                    "prefix": self.texts.prefix, "tokens": self.texts.tokens}  # fmt: skip
            card["clip"] = clip
        return card

    def model(self, source: str, seed: int, batch: int | None) -> Prompted:
        """The images that a model makes of the captions.

        Args:
            source: folder of a generator or teacher of a run with captions, or
                ``diffusers:FOLDER``.
            seed: of the latents; image i has latent i.
            batch: images a call.
        """
        foreign = source.startswith(DIFFUSERS)
        made = (_of_diffusers if foreign else _of_a_run)(self.texts, source, seed, batch,
                                                         self.device)  # fmt: skip
        return Prompted(source, self.captions.texts, made, seed)


_Made = Callable[[Sequence[str], np.ndarray], Sampler]


def _draws(seed: int, rows: np.ndarray, batch: int, device: torch.device) -> Draws:
    """Latent ``rows[j]`` of the seed with prompt j."""
    return Draws(seed, len(rows), batch, device, np.stack([rows, np.arange(len(rows))], axis=1))


def _of_a_run(
    texts: Texts, source: str, seed: int, batch: int | None, device: torch.device
) -> _Made:
    model, guidance = load(source, device), 1.0 if texts.guidance is None else texts.guidance
    reader = reader_of(model.card)

    def made(prompts: Sequence[str], rows: np.ndarray) -> Sampler:
        for line in model.tell(prompts, reader):
            log_line(line)
        draws = _draws(seed, rows, batch or model.batch, device)
        if isinstance(model, Teacher):
            return model.sampler(draws, steps=texts.steps, guidance=guidance)
        if texts.steps is not None:
            raise PagodaError(f"{source} is a generator, which makes images in one step")
        return model.sampler(draws, guidance=guidance)

    return made


def _of_diffusers(
    texts: Texts, source: str, seed: int, batch: int | None, device: torch.device
) -> _Made:
    from pagoda.text_to_image.model import load_diffusers

    model = load_diffusers(source.removeprefix(DIFFUSERS), device)
    given = {"steps": texts.steps, "guidance": texts.guidance}

    def made(prompts: Sequence[str], rows: np.ndarray) -> Sampler:
        told = model.read(list(prompts))
        for line in told.cut:
            log_line(line)
        draws = _draws(seed, rows, batch or model.batch, device)
        return model.sampler(draws, told, **given)

    return made
