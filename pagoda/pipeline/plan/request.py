"""What was asked of ``pagoda plan``: which experiment, which cards, which form."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from pagoda.config import Config, load, parse
from pagoda.config.root import project_root
from pagoda.data.registry import find
from pagoda.errors import PagodaError
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.plan.tables import CARDS, as_markdown
from pagoda.pipeline.stages.sources import open_split
from pagoda.results.plans import Plan

_KNOWN = {
    "imagenet": (1_281_167, 50_000),
    "Imagenette": (9_469, 3_925),
    "FashionMNIST": (60_000, 10_000),
}
"""Training and held-out images of data sets, by ``data.source`` or ``data.hub``."""


def print_plan(
    params: Path,
    profile: str | None,
    images: str | None,
    utilisation: float,
    tflops: float | None,
    probed: bool,
    as_json: bool,
) -> None:
    """Print the plan of a profile, or of the parameters, as tables or as JSON.

    Raises:
        PagodaError: for a profile, count, fraction or peak that cannot be.
    """
    if profile is None:
        config = load(params)
    else:  # as -S profile=NAME composes it
        tree = profile_tree(profile, project_root())
        config = parse(tree, f"experiments/profile/{profile}.yaml")
    plan = planned(config, images, utilisation, tflops, probed)
    sys.stdout.write(plan_json(plan) if as_json else as_markdown(plan))


def plan_json(plan: Plan) -> str:
    """A plan as ``pagoda plan --json`` prints it."""
    return json.dumps(dataclasses.asdict(plan), indent=1) + "\n"


def planned(
    config: Config,
    images: str | None = None,
    utilisation: float = 0.35,
    tflops: float | None = None,
    probed: bool = False,
) -> Plan:
    """Count an experiment, and time a few of its steps if ``probed``.

    The arguments are those of the command line.

    Raises:
        PagodaError: for a count, fraction or peak that cannot be.
    """
    from pagoda.pipeline.plan.count import make_plan
    from pagoda.pipeline.plan.probe import probe

    if not 0 < utilisation <= 1:
        raise PagodaError(f"--utilisation = {utilisation}; it must be above 0 and at most 1")
    if tflops is not None and not tflops > 0:
        raise PagodaError(f"--tflops = {tflops}; it must be above 0")
    cards = CARDS | ({} if tflops is None else {f"{tflops:g} TFLOP/s": tflops})
    counts = image_counts(config, _pair(images))
    reached = probe(config, counts[0]) if probed else ()
    return make_plan(config, counts, cards, utilisation, *reached)


def _pair(images: str | None) -> tuple[int, int] | None:
    if images is None:
        return None
    parts = images.split(",")
    if len(parts) != 2 or not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise PagodaError(f"--images = {images!r}; it must be two counts, e.g. 50000,10000")
    return int(parts[0]), int(parts[1])


def image_counts(config: Config, given: tuple[int, int] | None = None) -> tuple[int, int]:
    """Training and held-out images: as given, of a known set, or counted in the files.

    Raises:
        PagodaError: if they are not known and the files are not here.
    """
    data, advice = config.data, "--images TRAIN,TEST says how many images there are"
    limits = data.train_images, data.test_images
    whole = given or _KNOWN.get(data.source) or _KNOWN.get(data.hub or "")
    if whole is None and data.source == "embedded" and None not in limits:
        whole = limits[0] or 0, limits[1] or 0
    if whole is None and find(data.source).fetched:
        raise PagodaError(f"the number of images of {data.hub} is not known here; {advice}")
    try:
        whole = whole or (len(open_split(config, "train")), len(open_split(config, "test")))
    except PagodaError as error:
        raise PagodaError(f"{error}; without it, {advice}") from None
    train, test = (n if most is None else min(n, most)
                   for n, most in zip(whole, limits, strict=True))  # fmt: skip
    return train, test
