"""Trained models in use: pictures from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated as An

import typer

from pagoda.pipeline.commands.running import option, run_shared

Model = An[
    str,
    typer.Argument(metavar="MODEL", help="Folder of a generator or teacher, or an exported one."),
]


def sample(
    model: Model,
    out: An[Path, option("PATH", "A folder, a sheet (.png) or an array (.npz).")],
    classes: An[str | None, option("LIST", "By number or name: 0,3-5,ring; otherwise all.")] = None,
    seeds: An[str, option("LIST", "Whole numbers: 0-63,70.")] = "0-7",
    truncation: An[
        float | None, option("SHARE", "Shorten latents to this share of their usual norm.")
    ] = None,
    steps: An[int | None, option("N", "Noise levels of a teacher.", min=2)] = None,
    guidance: An[float, option("WEIGHT", "Of a teacher.")] = 1.0,
    batch: An[int | None, option("N", "Images a call of the network.", min=1)] = None,
) -> None:
    """Make images of classes and seeds with a generator or teacher."""
    from pagoda.pipeline.stages.sample import Request

    request = Request(model, out, classes, seeds, steps, guidance, truncation, batch)
    run_shared("sample", request)
