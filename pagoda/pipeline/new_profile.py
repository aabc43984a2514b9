"""A profile for a user's own images: what is there, what fits it, what it costs."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pagoda import outputs
from pagoda.config import NAME_RULE, is_name, parse
from pagoda.config.experiment import check_counts, derive_resolutions
from pagoda.data.archives import open_tree
from pagoda.data.base import ImageSource
from pagoda.data.registry import Wanted, find, names, open_source
from pagoda.errors import PagodaError
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.plan.count import THIS_MACHINE
from pagoda.pipeline.plan.request import planned

LEAST, FEW = 20, 1000
"""Training images below which stages refuse to work, and below which little can be learned."""

_SHARE = 0.1  # held out where there is one split
_LEAST_HELD_OUT = 10
_LOOKED_AT = 200  # images opened for their sizes
_EPOCHS = 100  # of the teacher at most: small sets are learned by heart
_FROM = {"cpu": "imagenette_cpu", "gpu": "imagenette"}  # profiles of natural images
_LARGEST = {"cpu": 32, "gpu": 128}
_LARGEST_BASE = {"cpu": 32, "gpu": 128}  # down from which those profiles' networks have levels
_PADDED = 0.75  # of the target: images of one size above that are padded to it
_LEAST_SIDE = 6  # pixels that are padded or enlarged to 8
_HEAD = re.compile(r"# @package _global_\n# [\d,]+ images of .+, \d+ -> \d+\.\n")
_TOLD = 6  # names of classes that are shown
_SCORED = {"cpu": 4000, "gpu": 10_000}


@dataclass(frozen=True)
class Found:
    """What lies in a folder or archive of images."""

    source: str  # a kind of data.source
    path: str
    classes: tuple[str, ...]
    train: int
    test: int
    share: float | None  # part held out; None: the set has splits of its own
    smallest: tuple[str, int]  # the class with the fewest training images, and how many
    sides: tuple[int, int, int]  # shorter sides of images: least, median, largest
    one_size: bool  # whether all images looked at have one size, which is square
    passed_over: str  # what is said of files that are no images


def look(images: str) -> Found:
    """Open a set of images as training would, and measure it.

    Args:
        images: a folder, or a zip, tar or npz archive.

    Raises:
        PagodaError: one line for what is missing, unreadable or too little.
    """
    path = Path(images)
    if not path.exists():
        raise PagodaError(f"{images} is not there; --images is a folder or an archive of images")
    source = _kind(path)
    train, test, share = _splits(source, images)
    counts = Counter(train.labels.tolist())
    fewest = min(range(len(train.classes)), key=lambda label: counts[label])
    if len(train) < LEAST:
        raise PagodaError(
            f"{images} has {len(train)} training images; {LEAST} are the least that the stages "
            f"work with, and {FEW:,} the least that something can be learned from"
        )
    sizes = _sizes(train)
    shorter = np.minimum(*sizes.T)
    sides = int(shorter.min()), int(np.median(shorter)), int(shorter.max())
    if sides[1] < _LEAST_SIDE:
        raise PagodaError(f"{images} has images of {sides[1]} pixels; the least are 8")
    one_size = len({tuple(size) for size in sizes.tolist()}) == 1 and bool(
        (sizes[0] == sides[0]).all()
    )
    return Found(
        source, images, train.classes, len(train), len(test), share,
        (train.classes[fewest], counts[fewest]), sides, one_size, train.passed_over,
    )  # fmt: skip


def _kind(path: Path) -> str:
    if path.is_dir():
        return "folder"
    for name in names():
        if path.name.lower().endswith(tuple(find(name).endings)):
            return name
    raise PagodaError(f"{path} is no folder and no archive that is known (zip, tar, npz)")


def _splits(source: str, path: str) -> tuple[ImageSource, ImageSource, float | None]:
    """Both splits: the set's own, or a share held out; one class where there are no folders."""

    def opened(classes: int | None, share: float | None) -> tuple[ImageSource, ImageSource]:
        train, test = (
            open_source(source, Wanted(split, path, num_classes=classes, test_share=share))
            for split in ("train", "test")
        )
        return train, test

    first = 1 if source != "npz" and _in_one_folder(path) else None
    try:
        return *opened(first, None), None
    except PagodaError as error:
        if source == "npz":
            raise PagodaError(f"{error}; x_train, y_train, x_test and y_test are needed") from error
        missing = error
    try:
        found = opened(first, _SHARE)
    except PagodaError as error:
        raise error from missing
    share = _SHARE
    if len(found[1]) < _LEAST_HELD_OUT:  # more of few, so that there is something to compare with
        share = 0.2
        found = opened(first, share)
    return *found, share


def _in_one_folder(path: str) -> bool:
    """Whether all images lie in one folder: there are no classes then, whatever it is called.

    Raises:
        PagodaError: there are none.
    """
    tree = open_tree(path)
    if not (names := tree.images()):
        passed = tree.passed_over(0)
        raise PagodaError(f"{path} holds no images" + f"; {passed}" * bool(passed))
    return len({name.rpartition("/")[0] for name in names}) == 1


def _sizes(source: ImageSource) -> np.ndarray:
    """Width and height of images from all over the set: (n, 2)."""
    rows = np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).round().astype(int)
    return np.array([source.load(int(row)).size for row in rows])


def sides_for(found: Found, device: str, base: int | None, target: int | None) -> tuple[int, int]:
    """Base and target: powers of two that the images and the machine bear.

    The target is at most the median of the images' shorter sides (images of one size just below a
    power of two are padded to it). The base is two doublings below it, at least 8, at most what
    the networks of the machine's profile have levels for.

    Raises:
        PagodaError: for a side that is no power of two, a target that all images are below, a base
            above the target or above that.
    """
    side = found.sides[1]
    fits = 1 << int(math.log2(max(side, 8)))
    if found.one_size and side > _PADDED * 2 * fits:
        fits *= 2
    target = target or max(8, min(fits, _LARGEST[device]))
    usual = max(8, target // (2 if device == "cpu" and target >= 32 else 4))
    base = base or min(usual, _LARGEST_BASE[device])
    for key, value in (("--target", target), ("--base", base)):
        if value < 8 or value & (value - 1):
            raise PagodaError(f"{key} {value}; it must be a power of two from 8 up")
    if target > (fits if found.one_size else max(fits, found.sides[2])):
        raise PagodaError(
            f"--target {target}, but the images' shorter sides have {found.sides[2]} pixels at "
            f"most; --target {fits} fits them"
        )
    if base > target:
        raise PagodaError(f"--base {base} is above --target {target}; the base is grown from")
    if base > _LARGEST_BASE[device]:
        raise PagodaError(
            f"--base {base} is above {_LARGEST_BASE[device]}, the largest that the networks of "
            f"profile {_FROM[device]} have levels for; let it be grown from that"
        )
    return base, target


def tree_for(name: str, found: Found, device: str, base: int, target: int) -> dict[str, Any]:
    """The profile: what differs from the profile of natural images for this kind of machine."""
    start, scored = _FROM[device], _SCORED[device]
    classes = len(found.classes)
    tree: dict[str, Any] = {
        "defaults": [start, "_self_"],
        "name": name,
        "base_res": base,
        "target_res": target,
        "data": {
            "source": found.source, "path": found.path, "hub": None, "num_classes": classes,
            "test_share": found.share,
        },
        "reference": {"manifold_images": min(found.train, 10_000)},
        "evaluate": {
            "samples": max(256, min(found.test, scored)),
            "score_splits": max(1, min(10, found.test // 10)),
        },
        "report": {"real_images": True},
    }  # fmt: skip
    side = found.sides[1]
    if found.one_size and side < target:
        tree["data"]["pad_to"] = target
    if device == "cpu":
        tree["invert"] = {"images": min(found.train, 4000)}
        tree["reference"]["extractors"] = ["classifier"]
    usual, unit = {"cpu": (192_000, 6_400), "gpu": (4_096_000, 51_200)}[device]  # whole batches
    if (seen := math.ceil(found.train * _EPOCHS / unit) * unit) < usual:
        tree["teacher"] = {"optim": {"images": seen}}
    return tree


def warnings(found: Found, target: int) -> list[str]:
    """What to know before the run, a line each."""
    told = []
    if found.train < FEW:
        told.append(
            f"{found.train} images are few: expect copies of them (train_share above 0.5 in the "
            f"report). {FEW:,} and more are needed for new images; EDM's augmentation is on."
        )
    name, fewest = found.smallest
    if fewest < 20 and len(found.classes) > 1:
        told.append(f"class {name} has {fewest} images; join classes, or drop it.")
    if found.test < 100:
        told.append(
            f"{found.test} images are held out: distances to them are coarse. More images, or "
            "data.test_share, help."
        )
    if found.sides[0] < target and found.one_size:
        told.append(f"images of {found.sides[0]} pixels are padded with black to {target}.")
    if found.sides[0] < target and not found.one_size:
        told.append(
            f"images of {found.sides[0]} pixels are enlarged to {target} and stay blurred; "
            f"--target {target // 2} avoids it."
        )
    return told


def write(
    images: str, name: str, root: Path, device: str, *, base: int | None = None,
    target: int | None = None, replace: bool = False,
    probed: bool = True,
) -> list[str]:  # fmt: skip
    """Write ``experiments/profile/<name>.yaml`` and say what was found and what it will cost.

    Args:
        images: a folder or an archive.
        name: of the profile and of its folders in ``runs/`` and ``reports/``.
        root: the project.
        device: ``cpu`` or ``gpu``: what it is to run on.
        base: side of the teacher's images; None: what fits.
        target: side of the largest images; None: what fits.
        replace: an existing profile.
        probed: time a few steps here, for hours.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    file = root / "experiments" / "profile" / f"{name}.yaml"
    if not is_name(name):
        raise PagodaError(f"--name {name!r}; it must be {NAME_RULE}")
    if not (root / "experiments" / "base.yaml").is_file():
        raise PagodaError("no experiments/base.yaml here; profiles belong to a clone of pagoda")
    if file.exists():
        ours = _HEAD.match(file.read_text("utf-8", errors="replace")) is not None
        if not (replace and ours):
            other = ", and 'pagoda new-profile' did not write it; choose another --name"
            how = "; --replace, or another --name" if ours else other
            raise PagodaError(f"{file.relative_to(root)} is there already{how}")
    found = look(images)
    sides = sides_for(found, device, base, target)
    told = [
        *_found(found),
        *_fits(sides, device),
        *(f"note      {w}" for w in warnings(found, sides[1])),
    ]
    head = f"# @package _global_\n# {found.train:,} images of {images}, {sides[0]} -> {sides[1]}.\n"
    body = yaml.safe_dump(
        tree_for(name, found, device, *sides), sort_keys=False, allow_unicode=True
    )
    before = file.read_text("utf-8") if file.exists() else None
    outputs.write_text(file, head + body)
    try:
        config = parse(profile_tree(name, root), f"experiments/profile/{name}.yaml")
        check_counts(config, {"train": found.train, "test": found.test}, file.name)
        plan = planned(config, f"{found.train},{found.test}", probed=probed).all_stages
    except BaseException:
        file.unlink() if before is None else file.write_text(before, "utf-8")
        raise
    cost = f"cost      {plan.flops / 1e15:.3g} PFLOP"
    if probed:
        hours = _time(plan.hours[THIS_MACHINE])
        cost += f", about {hours} on this machine, as busy as it is now (a few steps were timed)"
    return [*told, cost, f"written   {file.relative_to(root)}",
            f"next      dvc exp run -S profile={name}"]  # fmt: skip


def _found(found: Found) -> list[str]:
    name, fewest = found.smallest
    shown = ", ".join(found.classes[:_TOLD]) + " ..." * (len(found.classes) > _TOLD)
    classes = f"{len(found.classes)} classes ({shown}), {name} the smallest with {fewest}"
    classes = "one class" if len(found.classes) == 1 else classes
    how = "as the set has it" if found.share is None else f"{found.share:.0%} of each class"
    least, median, largest = found.sides
    sizes = f"{least}" if least == largest else f"{least} to {largest}, median {median}"
    lines = [
        f"images    {found.train:,} for training, {classes}",
        f"held out  {found.test:,}, {how}; never trained on",
        f"sizes     {sizes} pixels on the shorter side",
    ]
    return lines + ([f"ignored   {found.passed_over}"] if found.passed_over else [])


def _fits(sides: tuple[int, int], device: str) -> list[str]:
    base, target = sides
    steps = map(str, derive_resolutions(base, target))
    where = "a CPU" if device == "cpu" else "one GPU"
    return [f"fits      {' -> '.join(steps)} on {where}, from profile {_FROM[device]}"]


def _time(hours: float) -> str:
    minutes = hours * 60
    return f"{minutes:.0f} minutes" if minutes < 90 else f"{hours:.1f} hours"
