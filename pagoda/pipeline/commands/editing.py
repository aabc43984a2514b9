"""Edits of images: ``pagoda edit inpaint|super-resolve|transfer|interpolate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated as An

import typer

from pagoda.pipeline.commands.running import Teacher, option, place, run

Model = An[str, typer.Argument(metavar="GEN", help="Folder of a generator, or an exported one.")]
Images = An[
    list[Path], typer.Argument(metavar="IMAGE...", help="RGB files, one size; all of one class.")
]
Out = An[Path, place("FILE.png", "A row an image, its answers side by side.")]
Class = An[str, option("CLASS", "Class of the images, by number or name.", "--class")]
Seed = An[int, option("N", "Seed of all noise.", min=0)]
Steps = An[int | None, option("N", "Steps of a search, each a call of the generator.", min=1)]
Rate = An[float, option("RATE", "Learning rate of the search.")]
Restarts = An[int, option("N", "Searches for each answer; the best is kept.", min=1)]
Answers = An[int, option("N", "Different answers to each image.", min=1)]
Norm = An[
    str, option("NAME", "Of latents: as in the run (cache), as of noise (sphere), any (free).")
]
Walk = An[bool, option(None, "Walk on by Langevin dynamics: answers differ more.", "--langevin")]


def inpaint(
    model: Model,
    images: Images,
    mask: An[Path, option("FILE", "White: what is kept; black: the holes.")],
    out: Out,
    label: Class,
    teacher: An[Path | None, option("FOLDER", "Begin a search at the latent it inverts.")] = None,
    steps: Steps = None,
    lr: Rate = 0.1,
    restarts: Restarts = 2,
    answers: Answers = 1,
    langevin: Walk = False,
    norm: Norm = "cache",
    seam: An[int, option("PIXELS", "Blend what is kept over so many pixels.", min=0)] = 0,
    raw: An[bool, option(None, "Leave what was kept as the generator makes it.", "--raw")] = False,
    seed: Seed = 0,
) -> None:
    """Fill the holes of images."""
    from pagoda.pipeline.stages.edit import Common
    from pagoda.pipeline.stages.edit_inputs import Searched

    common = Common(model, images, out, label, teacher, seed)
    how = Searched(steps, lr, restarts, answers, langevin, norm)
    run("edit", common, how, mask, seam, not raw, function="inpaint_files")


def super_resolve(
    model: Model,
    images: Images,
    out: Out,
    label: Class,
    teacher: Teacher = None,
    steps: Steps = None,
    lr: Rate = 0.1,
    restarts: Restarts = 1,
    answers: Answers = 1,
    langevin: Walk = False,
    norm: Norm = "cache",
    consistent: An[
        bool, option(None, "Change answers so that their blocks have the means given.",
                     "--consistent/--raw")
    ] = True,
    seed: Seed = 0,
) -> None:  # fmt: skip
    """Enlarge images to the generator's size.

    By inversion; with --steps, --restarts, --answers or --langevin by a search.
    """
    from pagoda.pipeline.stages.edit import Common
    from pagoda.pipeline.stages.edit_inputs import Searched

    common = Common(model, images, out, label, teacher, seed)
    how = Searched(steps, lr, restarts, answers, langevin, norm)
    run("edit", common, how, consistent, function="super_resolve_files")


def transfer(
    model: Model,
    images: Images,
    to: An[str, option("LIST", "Wanted classes, by number or name: 0,3-5,ring.")],
    out: Out,
    label: Class,
    teacher: Teacher = None,
    seed: Seed = 0,
) -> None:
    """Images as if they were of other classes: a column a class."""
    from pagoda.pipeline.stages.edit import Common

    common = Common(model, images, out, label, teacher, seed)
    run("edit", common, to, function="transfer_files")


def interpolate(
    model: Model,
    images: An[list[Path], typer.Argument(metavar="FIRST SECOND", help="Two RGB files.")],
    out: Out,
    label: Class,
    frames: An[int, option("N", "Images of the path, ends included.", min=2, max=1000)] = 9,
    teacher: Teacher = None,
    seed: Seed = 0,
) -> None:
    """A path between two images of a class."""
    from pagoda.pipeline.stages.edit import Common

    common = Common(model, images, out, label, teacher, seed)
    run("edit", common, frames, function="interpolate_files")
