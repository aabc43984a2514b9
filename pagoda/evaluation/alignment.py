"""How well samples follow the captions that they were told: read off pictures, and by CLIP.

``caption`` is the share of pictures that show every word of their caption
(:mod:`pagoda.data.reading`), ``caption_by_chance`` that of the captions of other samples, in a
random order. ``clip_score`` is the mean cosine of the embeddings of picture and caption (Hessel et
al. 2021, arXiv 2104.08718, without the factor 2.5) under a CLIP of the run that nothing was trained
by, no prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import nn

from pagoda import distributed
from pagoda.artifacts import Artifact
from pagoda.data.captions import agreement, parse
from pagoda.data.pixels import to_float
from pagoda.data.reading import SIDE, read
from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import size
from pagoda.evaluation.metrics.intervals import fraction_interval, mean_interval
from pagoda.networks.captions import CaptionStates, CaptionTable
from pagoda.networks.clip import clip_beside
from pagoda.rows import Row

Reader = Callable[[Sequence[str]], CaptionStates]
"""What makes of texts what a network is told."""
CAPTION, BY_CHANCE, SCORE = "caption", "caption_by_chance", "clip_score"


def tell(
    model: Artifact, network: nn.Module, prompts: Sequence[str], reader: Reader | None = None
) -> tuple[str, ...]:
    """Put prompts in place of the captions that a network knows.

    Args:
        model: of which ``network`` is.
        network: it is changed: labels are the numbers of the prompts then.
        prompts: texts.
        reader: the model's text encoder; None: the CLIP beside it.

    Returns:
        A line for each prompt that was too long, which says where it was cut.

    Raises:
        PagodaError: the model is told classes, has no text encoder, or a prompt is empty.
    """
    tables = [m for m in network.modules() if isinstance(m, CaptionTable)]
    if not tables:
        raise PagodaError(f"{model.path} has classes and reads no prompts; give --classes")
    if not prompts:
        raise PagodaError("no prompt is given, so there is nothing to make")
    if empty := [i for i, prompt in enumerate(prompts, 1) if not prompt.strip()]:
        raise PagodaError(f"prompt {empty[0]} is empty; write one")
    if reader is None:
        if (clip := clip_beside(model)) is None:
            raise PagodaError(
                f"{model.path} was told captions by a text encoder that is not beside it; give one"
            )
        reader = clip.read
    states = reader(prompts)
    for table in tables:
        table.fill(states)
    return states.cut


class Scorer(Protocol):
    """A CLIP as this module asks it: of a run, or one of open_clip."""

    @property
    def tokenizer(self) -> Callable[[Sequence[str]], tuple[torch.Tensor, tuple[str, ...]]]:
        """Texts -> their tokens (n, l), and a line for each that is too long."""

    def images(self, x: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, r, r) in [-1, 1] -> (n, d), of length 1."""

    def texts(self, rows: torch.Tensor) -> torch.Tensor:
        """Tokens (n, l) -> (n, d), of length 1."""

    def to(self, device: torch.device) -> Self:
        """Itself, on a device."""


class Alignment:
    """What samples show of their captions, filled in while the evaluation passes over them.

    Args:
        captions: of each sample, by the name of the set.
        clip: scores them; None: nothing does.
        side: of the pictures; small ones are not read.
        device: where ``clip`` runs.
        readable: the captions are of the embedded set's grammar.
    """

    def __init__(
        self, captions: Mapping[str, Sequence[str]], clip: Scorer | None, side: int,
        device: torch.device, *, readable: bool = True,
    ) -> None:  # fmt: skip
        self.captions, self.device = captions, device
        self.clip = None if clip is None else clip.to(device)
        self.read = readable and side >= SIDE and side % SIDE == 0
        self.said = {n: [parse(t) for t in texts] for n, texts in captions.items() if self.read}
        turned = {n: np.random.default_rng(0).permutation(len(t)) for n, t in captions.items()}
        self.others = {n: [said[i] for i in turned[n]] for n, said in self.said.items()}
        names = ([CAPTION, BY_CHANCE] if self.read else []) + ([SCORE] if clip else [])
        self.found = {(n, key): np.zeros(len(t)) for n, t in captions.items() for key in names}
        self._texts: dict[str, torch.Tensor] = {}

    @torch.inference_mode()
    def see(self, name: str, rows: np.ndarray, images: np.ndarray) -> None:
        """Note what images (n, 3, r, r) uint8 show, which are ``rows`` of a set."""
        if name not in self.captions:
            return
        if self.read:
            seen = read(images)
            for key, said in ((CAPTION, self.said[name]), (BY_CHANCE, self.others[name])):
                words = agreement(seen, [said[i] for i in rows])
                self.found[name, key][rows] = np.all(list(words.values()), axis=0)
        if self.clip is not None:
            x = self.clip.images(to_float(torch.from_numpy(images).to(self.device)))
            texts = [self.captions[name][i] for i in rows]
            y = torch.stack([self._text(text) for text in texts])
            self.found[name, SCORE][rows] = (x * y).sum(1).double().cpu().numpy()

    def rows(self, facts: Mapping[str, Any]) -> list[Row]:
        """A row a value and set; of all processes' images.

        Args:
            facts: what every row says besides.
        """
        distributed.all_reduce_(map(torch.from_numpy, self.found.values()))
        return [replace(row, generator=name, **facts) for (name, key), values in self.found.items()
                for row in _row(key, values)]  # fmt: skip

    def _text(self, text: str) -> torch.Tensor:
        assert self.clip is not None
        if text not in self._texts:
            ids = self.clip.tokenizer([text])[0].to(self.device)
            self._texts[text] = self.clip.texts(ids)[0]
        return self._texts[text]


def _row(key: str, values: np.ndarray) -> Iterable[Row]:
    n = len(values)
    if n < 2:
        return
    fraction = key != SCORE
    over = fraction_interval(values > 0) if fraction else mean_interval(values)
    yield Row(metric=key, protocol=f"{key}_{size(n)}", value=float(values.mean()), n=n,
              low=over.low, high=over.high, interval=str(over))  # fmt: skip
