"""What was asked of ``pagoda plan``: which experiment, which cards, which form."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from pagoda.config import Config, load, parse
from pagoda.config.root import project_root
from pagoda.errors import PagodaError
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.plan.rows import CARDS, Plan
from pagoda.pipeline.plan.sizes import image_counts


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
    config = load(params) if profile is None else profile_config(profile)
    plan = planned(config, images, utilisation, tflops, probed)
    if as_json:
        text = json.dumps(dataclasses.asdict(plan), indent=1) + "\n"
    else:
        from pagoda.pipeline.plan.tables import as_markdown

        text = as_markdown(plan)
    sys.stdout.write(text)


def profile_config(name: str) -> Config:
    """A profile of ``experiments/profile`` as ``-S profile=NAME`` composes it."""
    return parse(profile_tree(name, project_root()), f"experiments/profile/{name}.yaml")


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

    if not 0 < utilisation <= 1:
        raise PagodaError(f"--utilisation = {utilisation}; it must be above 0 and at most 1")
    if tflops is not None and not tflops > 0:
        raise PagodaError(f"--tflops = {tflops}; it must be above 0")
    cards = CARDS | ({} if tflops is None else {f"{tflops:g} TFLOP/s": tflops})
    counts, reached = image_counts(config, _pair(images)), None
    if probed:
        from pagoda.pipeline.plan.probe import probe

        reached = probe(config, counts[0])
    return make_plan(config, counts, cards, utilisation, reached)


def _pair(images: str | None) -> tuple[int, int] | None:
    if images is None:
        return None
    parts = images.split(",")
    if len(parts) != 2 or not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise PagodaError(f"--images = {images!r}; it must be two counts, e.g. 50000,10000")
    return int(parts[0]), int(parts[1])
