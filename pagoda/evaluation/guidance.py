"""How samples are guided, and which weights a model takes; w = 1 is no guidance everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pagoda.artifacts import MANIFEST, Artifact, open_artifact
from pagoda.errors import PagodaError
from pagoda.fields import NUMBER
from pagoda.networks.denoiser import load_denoiser
from pagoda.tensors import read_tensors


def check_weight(
    where: str, known: Sequence[float] | None, weight: float, measured: bool = False
) -> None:
    """Refuse a guidance weight that a generator does not know; 1, none, is what all take.

    A generator whose weights begin above 1 is told the nearest to none then.

    Args:
        where: the generator.
        known: smallest and largest weight of its training; None: it is told none.
        weight: what is asked for.
        measured: a result is to be of this weight and no other, so 1 must be known, too.

    Raises:
        PagodaError: one line with the range.
    """
    if weight == 1 and not (measured and known):
        return
    if known is None:
        raise PagodaError(
            f"guidance = {weight:g}, but {where} is a generator that is told no weight; train one "
            "with distill.method: guided, or leave guidance at 1, which is none"
        )
    if not known[0] <= weight <= known[1]:
        raise PagodaError(
            f"guidance = {weight:g}; {where} was trained with weights from {known[0]:g} to "
            f"{known[1]:g} (1 is none)"
        )


def check_label_dropout(where: str, card: Mapping[str, Any], weight: float) -> None:
    """Refuse classifier-free guidance of a teacher that was told every class.

    Raises:
        PagodaError: one line.
    """
    if weight != 1 and not card.get("label_dropout"):
        raise PagodaError(
            f"guidance = {weight:g}, but {where} was trained with every class "
            "told; train it with teacher.label_dropout=0.1, or leave guidance at 1"
        )


@dataclass(frozen=True)
class Guidance:
    """How the teacher is guided (:func:`pagoda.diffusion.solver.guided`).

    Attributes:
        weight: w; 1 is none.
        levels: (low, high]: noise levels that are guided; None: all.
        guide: loads a weaker denoiser of the same classes for autoguidance; None: the teacher
            without the class.
    """

    weight: float = 1.0
    levels: tuple[float, float] | None = None
    guide: Callable[[], nn.Module] | None = None


def weaker(teacher: Artifact, name: str) -> Callable[[], nn.Module]:
    """What loads the weaker denoiser of autoguidance: an earlier checkpoint of the teacher.

    Args:
        teacher: the one that is guided.
        name: a snapshot beside its weights (``teacher.optim.ema_profiles`` keeps some), by its name
            with or without the ending; or the folder of another teacher of the same classes.

    Raises:
        PagodaError: there is no such snapshot or folder, or its classes or resolution differ.
    """
    folder, card = Path(name), teacher.card()
    if (folder / MANIFEST).is_file():
        other = open_artifact(folder, "teacher")
        for key in ("num_classes", "resolution"):
            mine, theirs = card["unet"][key], other.card()["unet"][key]
            if mine != theirs:
                raise PagodaError(f"{folder}: its {key} is {theirs}, that of {teacher.path} {mine}")
        return lambda: other.network(load_denoiser)
    file = teacher.path / f"{name.removesuffix('.safetensors')}.safetensors"
    if file.parent != teacher.path or not file.is_file() or not file.name.startswith("ema-"):
        kept = ", ".join(sorted(f.stem for f in teacher.path.glob("ema-*.safetensors")))
        raise PagodaError(
            f"{teacher.path} has no snapshot {name}; it has {kept or 'none'}"
            + ("" if kept else ": train it with teacher.optim.ema_profiles=[0.1]")
        )
    return lambda: load_denoiser(read_tensors(file), card)


def parse_levels(text: str | None) -> tuple[float, float] | None:
    """``0.2,5`` -> (0.2, 5.0): noise levels above the first, up to the second, are guided.

    Raises:
        PagodaError: it is no two rising numbers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 2 and all(NUMBER.fullmatch(part) for part in parts):
        low, high = map(float, parts)
        if 0 <= low < high < math.inf:
            return low, high
    raise PagodaError(f"--interval {text!r}; it must be two rising noise levels, as in 0.2,5")
