"""What a preference study is made of: images of generators, folders, archives and arrays.

Each gets the prompt of every image, and images are put together by it: the k-th of a prompt in one
source stands beside the k-th of that prompt in the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pagoda import hub
from pagoda.artifacts import digest, open_artifact
from pagoda.data.archives import open_tree
from pagoda.data.npz import Npz
from pagoda.errors import PagodaError
from pagoda.evaluation.files import FileImages, kind_of, open_images
from pagoda.evaluation.samplers import Sampler
from pagoda.evaluation.streaming import Images
from pagoda.models import Teacher, load
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.progress import log_line
from pagoda.pipeline.stages.sample import ABOUT, LIST, class_list, numbers
from pagoda.pipeline.stages.text_lines import read_lines
from pagoda.provenance import MODELS

_SPLITS = ("train", "test", "val")
_TOLD = 4  # prompts in a message


@dataclass(frozen=True)
class Wanted:
    """Which images are compared: options of ``pagoda prefer make``, as they were typed.

    Attributes:
        classes: by number or name; None: all.
        seeds: of generators and teachers.
        prompts: a file with a line an image, in the order of the images' names; None: the classes
            are the prompts.
        per_prompt: images of each prompt; None: all, which must be as many everywhere.
        steps, guidance: of teachers.
        split, crop, size, exif: of files, as :func:`pagoda.evaluation.files.open_images` has them.
    """

    classes: str | None = None
    seeds: str = "0-9"
    prompts: Path | None = None
    per_prompt: int | None = None
    steps: int | None = None
    guidance: float = 1.0
    split: str | None = None
    crop: str | None = None
    size: int | None = None
    exif: bool = False


@dataclass(frozen=True)
class Candidate:
    """Images of one source, with the prompt of each.

    Attributes:
        name: what it is called in the report.
        source: as it was typed.
        images: uint8, in a fixed order.
        prompts: one an image.
    """

    name: str
    source: str
    images: Images
    prompts: list[str]

    def about(self) -> dict[str, Any]:
        """Where the images are from, and what identifies them."""
        card = self.images.card()
        identity = card.get("generator") or digest(card)
        more = {"nfe": self.images.nfe} if isinstance(self.images, Sampler) else {}
        return {"source": self.source, "identity": identity, **more}


def open_candidate(source: str, name: str, wanted: Wanted) -> Candidate:
    """The images of a source.

    Raises:
        PagodaError: one line: nothing is there, or nobody says what its images show.
    """
    path = Path(source)
    if kind_of(path) in MODELS or (not path.exists() and hub.is_name(source)):
        return _of_model(source, name, wanted)
    images = open_images(path, wanted.split, wanted.crop, wanted.size, wanted.exif)
    if isinstance(images, FileImages) and images.passed_over:
        log_line(f"{images.where}: {images.passed_over}")
    return Candidate(name, source, images, _prompts(path, images, wanted))


def _of_model(source: str, name: str, wanted: Wanted) -> Candidate:
    if wanted.prompts is not None:
        raise PagodaError(f"{source} makes images of classes; --prompts is for images of prompts")
    model = load(source, pick_device())
    classes = model.numbers(None if wanted.classes is None else class_list(wanted.classes))
    draws = model.draws(classes, numbers(wanted.seeds, "--seeds"))
    if isinstance(model, Teacher):
        sampler = model.sampler(draws, steps=wanted.steps, guidance=wanted.guidance)
    else:
        sampler = model.sampler(draws)
    return Candidate(name, source, sampler, [model.classes[y] for y in _told(sampler)])


def _prompts(path: Path, images: Images, wanted: Wanted) -> list[str]:
    """The prompt of each image of a source of images."""
    if wanted.prompts is not None:
        lines = read_lines(wanted.prompts)
        if len(lines) != len(images):
            raise PagodaError(
                f"{wanted.prompts} has {len(lines)} lines, {images.where} {len(images)} images; "
                "give a line an image, in the order of their names"
            )
        if "" in lines:
            raise PagodaError(f"{wanted.prompts}, line {lines.index('') + 1} is empty")
        return lines
    if isinstance(images, FileImages):
        found = _of_folders(path, images.names, wanted.split)
    elif kind_of(path) is not None:
        artifact = open_artifact(path, "images")
        names = artifact.card()["classes"]
        found = [str(names[y]) for y in artifact.array(f"{wanted.split}_labels")]
    else:
        found = _of_array(path, wanted.split)
    if len(found) != len(images):
        raise PagodaError(
            f"{images.where}: nobody says what the images show; put them into a folder a class, "
            "give an .npz labels, or name a file with --prompts"
        )
    return found


def _of_folders(path: Path, names: Sequence[str], split: str | None) -> list[str]:
    """The class folder of each file, by its name where ``pagoda sample`` wrote the folder."""
    parts = [name.split("/")[:-1] for name in names]
    while parts and all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]  # a folder around everything
    if split is not None:
        parts = [p[p.index(split) + 1 :] if split in p else p for p in parts]
    elif all(p and p[0] in _SPLITS for p in parts):
        parts = [p[1:] for p in parts]
    if not all(parts):
        return []
    return [_class_names(path).get(p[0], p[0]) for p in parts]


def _class_names(path: Path) -> dict[str, str]:
    """Folders of ``pagoda sample``, numbers of classes, and the names of these."""
    tree = open_tree(path) if path.exists() else None
    if tree is None or LIST not in tree.names:
        return {}
    try:
        told = json.loads(tree.read_text(LIST))["classes"]
        folders = {name.partition("/")[0] for name in tree.names if "/" in name}
        named = {folder: folder.lstrip("0") or "0" for folder in folders}
        return {folder: str(told[y]) for folder, y in named.items() if y in told}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _of_array(path: Path, split: str | None) -> list[str]:
    """Labels of an ``.npz``, by name where it holds these."""
    if path.suffix != ".npz":
        return []
    file = Npz(path)
    key = f"y_{split}" if split else "labels"
    if key not in file.keys:
        return []
    labels = file.member(key).array().reshape(-1)
    names: dict[str, str] = {}
    if "classes" in file.keys:
        names = {str(i): str(name) for i, name in enumerate(file.member("classes").array())}
    elif ABOUT in file.keys:
        try:
            names = json.loads(str(file.member(ABOUT).array()))["classes"]
        except (ValueError, KeyError, TypeError, RecursionError):
            names = {}
    return [str(names.get(str(y), y)) for y in labels.tolist()]


@dataclass(frozen=True)
class Match:
    """Images that belong together: of one prompt, one of every candidate."""

    prompt: str
    rows: tuple[int, ...]


def matched(candidates: Sequence[Candidate], wanted: Wanted) -> list[Match]:
    """The k-th image of a prompt in every candidate, prompt by prompt.

    Raises:
        PagodaError: one line: prompts differ, or how many images there are of one.
    """
    chosen = None if wanted.classes is None else {str(c) for c in class_list(wanted.classes)}
    made = {p for c in candidates if isinstance(c.images, Sampler) for p in c.prompts}
    if chosen and made:  # generators know what the numbers of their classes are called
        chosen = made
    of = [_by_prompt(c, chosen) for c in candidates]
    first = candidates[0]
    for candidate, own in zip(candidates[1:], of[1:], strict=True):
        for here, there, a, b in ((of[0], own, first, candidate), (own, of[0], candidate, first)):
            if lacking := [prompt for prompt in here if prompt not in there]:
                shown = ", ".join(lacking[:_TOLD]) + " ..." * (len(lacking) > _TOLD)
                raise PagodaError(
                    f"{b.source} has no images of {shown}, which {a.source} has; compare the same "
                    "classes or prompts (--classes LIST takes some)"
                )
    found = []
    for prompt in of[0]:
        counts = [len(own[prompt]) for own in of]
        least = wanted.per_prompt or min(counts)
        for candidate, count in zip(candidates, counts, strict=True):
            if count < least or (wanted.per_prompt is None and count > least):
                raise PagodaError(
                    f"{candidate.source} has {count} images of {prompt}, "
                    f"{candidates[counts.index(min(counts))].source} {min(counts)}; "
                    f"--per-prompt {min(counts)} takes the first of each"
                )
        found += [Match(prompt, tuple(own[prompt][k] for own in of)) for k in range(least)]
    return found


def named(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Generators that do not know what their classes are called, told by one of as many classes."""
    known: dict[int, dict[int, str]] = {}
    for c in candidates:
        if isinstance(c.images, Sampler) and c.prompts != _as_numbers(c.images):
            own = dict(zip(_told(c.images), c.prompts, strict=True))
            known.setdefault(c.images.classes, own)
    found = []
    for c in candidates:
        if isinstance(c.images, Sampler) and c.prompts == _as_numbers(c.images):
            told = known.get(c.images.classes, {})
            prompts = [told.get(y, str(y)) for y in _told(c.images)]
            c = replace(c, prompts=prompts)
        found.append(c)
    return found


def _as_numbers(sampler: Sampler) -> list[str]:
    return [str(y) for y in _told(sampler)]


def _told(sampler: Sampler) -> list[int]:
    """Class, or number of the caption, of each sample."""
    return list(sampler.which(np.arange(len(sampler)))[1].tolist())


def _by_prompt(candidate: Candidate, chosen: set[str] | None) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for i, prompt in enumerate(candidate.prompts):
        if chosen is None or prompt in chosen:
            found.setdefault(prompt, []).append(i)
    if not found:
        there = ", ".join(list(Counter(candidate.prompts))[:_TOLD])
        raise PagodaError(f"{candidate.source} has none of the --classes; it has {there}")
    return found


def read(candidate: Candidate, rows: Sequence[int]) -> np.ndarray:
    """uint8 images (n, 3, h, w) of rows in any order."""
    order = np.argsort(rows, kind="stable")
    made = candidate.images.read(np.asarray(rows)[order])
    return made[np.argsort(order, kind="stable")]


def renamed(names: str | None, sources: Sequence[str]) -> list[str]:
    """Names of the candidates: as given, or what their paths end in.

    Raises:
        PagodaError: another number of names than of sources.
    """
    if names is None:
        found = [Path(source).name.split(".")[0] or source for source in sources]
        return found if len(set(found)) == len(found) else list(sources)
    given = [name.strip() for name in names.split(",")]
    if len(given) != len(sources):
        raise PagodaError(f"--names {names!r} are {len(given)}, for {len(sources)} sources")
    return given
