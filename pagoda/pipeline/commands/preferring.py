"""A human preference study: ``pagoda prefer make|serve|report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated as An

import typer

from pagoda.pipeline.commands.running import option, place, run
from pagoda.pipeline.commands.scoring import Crop, Exif, Size, Split

Folder = An[Path, typer.Argument(metavar="STUDY", help="What 'pagoda prefer make' wrote.")]


def make(
    sources: An[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Two or more: generators, teachers, folders, .zip, .tar, .npz.",
        ),
    ],
    out: An[Path, place("STUDY", "The new folder of the study.")],
    names: An[str | None, option("LIST", "What the report calls them: A,B.")] = None,
    classes: An[str | None, option("LIST", "By number or name; otherwise all.")] = None,
    seeds: An[str, option("LIST", "Seeds of generators, in every class: 0-9,20.")] = "0-9",
    prompts: An[
        Path | None, option("FILE", "A prompt a line, in the order of the images' names.")
    ] = None,
    per_prompt: An[int | None, option("N", "Images of each class or prompt.", min=1)] = None,
    question: An[
        list[str] | None, option("KEY=TEXT", "Instead of the two questions; several times.")
    ] = None,
    per_voter: An[int | None, option("N", "Pairs a voter sees; otherwise all.", min=1)] = None,
    repeats: An[
        float, option("FRACTION", "Pairs that come again, sides exchanged.", min=0, max=0.5)
    ] = 0.05,
    attention: An[
        float,
        option("FRACTION", "Pairs that are added, of which the answer is known.", min=0, max=0.5),
    ] = 0.05,
    seed: An[int, option("N", "Seed of order, sides and repeats.", min=0)] = 0,
    steps: An[int | None, option("N", "Noise levels, of a teacher.", min=2)] = None,
    guidance: An[float, option("WEIGHT", "Of guidance, of a teacher; 1 is none.")] = 1.0,
    split: Split = None,
    crop: Crop = None,
    size: Size = None,
    exif: Exif = False,
) -> None:
    """Put images of two or more generators together for people to compare."""
    from pagoda.pipeline.stages.prefer_inputs import Wanted
    from pagoda.pipeline.stages.prefer_make import Asked, question_list

    asked = Asked(question_list(question or []), seed, per_voter, repeats, attention)
    wanted = Wanted(classes, seeds, prompts, per_prompt, steps, guidance, split, crop, size, exif)
    run("prefer_make", sources, out, names, wanted, asked, function="make")


def serve(
    study: Folder,
    host: An[str, option("NAME", "Where it listens; 0.0.0.0: to other machines, too.")] = (
        "127.0.0.1"
    ),
    port: An[int, option("N", "0: any that is free.", min=0, max=65535)] = 7861,
) -> None:
    """Open the page that asks, and keep every vote."""
    run("prefer", study, host, port, function="serve")


def report(
    study: Folder,
    out: An[Path | None, place("FOLDER", "Of the report; otherwise STUDY/report.")] = None,
    most_failed: An[
        float,
        option("FRACTION", "Wrong attention answers of a voter who counts.", min=0, max=1),
    ] = 0.25,
) -> None:
    """Write what the votes say: strengths, win rates, agreement."""
    run("prefer", study, out, most_failed, function="report")
