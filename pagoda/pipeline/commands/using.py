"""Trained models in use: pictures from them, and folders to hand on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated as An

import typer

from pagoda.pipeline.commands.running import Teacher, option, outside_runs, place, run, run_shared

Model = An[
    str,
    typer.Argument(metavar="MODEL", help="Folder of a generator or teacher; hub's OWNER/NAME."),
]


def sample(
    model: An[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder of a generator or teacher; hub's OWNER/NAME; diffusers:FOLDER.",
        ),
    ],
    out: An[Path, place("PATH", "A folder, a grid (.png) or an array (.npz).")],
    classes: An[str | None, option("LIST", "By number or name: 0,3-5,ring; otherwise all.")] = None,
    seeds: An[str, option("LIST", "Whole numbers: 0-63,70.")] = "0-7",
    truncation: An[
        float | None, option("SHARE", "Shorten latents to this share of their usual norm.")
    ] = None,
    steps: An[
        int | None, option("N", "Noise levels, of a teacher; steps, of a consistency model.", min=1)
    ] = None,
    guidance: An[
        float | None,
        option(
            "WEIGHT",
            "Of guidance, of a teacher or a generator that is told it; 1 is none, the "
            "default (of a consistency model, 8.5).",
        ),
    ] = None,
    interval: An[
        str | None, option("LOW,HIGH", "Noise levels of a teacher that are guided; else all.")
    ] = None,
    guide: An[
        str | None,
        option("NAME", "Autoguidance by a snapshot of the teacher, or another one's folder."),
    ] = None,
    batch: An[int | None, option("N", "Images that the network takes at once.", min=1)] = None,
    prompts: An[
        str | None, option("TEXT", "For models told captions: a text, or a .txt file, one a line.")
    ] = None,
) -> None:
    """Make images of classes or prompts and seeds."""
    from pagoda.pipeline.stages.sample import Request

    request = Request(
        model, out, classes, seeds, steps, guidance, truncation, batch, interval, guide, prompts
    )
    run_shared("sample", request)


def serve(
    models: An[
        list[str],
        typer.Argument(
            metavar="GEN...",
            help="Generators grown from each other; of a run, one brings those beside it.",
        ),
    ],
    teacher: Teacher = None,
    host: An[str, option("NAME", "Where it listens; 0.0.0.0: to other machines, too.")] = (
        "127.0.0.1"
    ),
    port: An[int, option("N", "0: any that is free.", min=0, max=65535)] = 7860,
) -> None:
    """Open a page to try a generator: samples, paths, edits."""
    from pagoda.pipeline.stages.serve import Request

    run("serve", Request(models, teacher, host, port))


def export(
    model: Model,
    out: An[Path, typer.Argument(help="The new folder.", callback=outside_runs)],
    licence: An[str | None, option("ID", "Of the weights, e.g. apache-2.0.")] = None,
    program: An[bool, option(None, "Add model.pt2, for torch.export.load.", "--program")] = False,
    onnx: An[bool, option(None, "Add model.onnx, for onnxruntime.", "--onnx")] = False,
    diffusers: An[bool, option(None, "Make it a diffusers pipeline, too.", "--diffusers")] = False,
) -> None:
    """Make a model a folder that stands alone, with a model card."""
    from pagoda.pipeline.stages.export import Request

    run("export", Request(model, out, licence, program, onnx, diffusers))


def push(
    folder: An[Path, typer.Argument(help="What 'pagoda export' wrote.")],
    name: An[str, typer.Argument(metavar="OWNER/NAME", help="On the Hugging Face hub.")],
    private: An[bool, option(None, "A new one is private.", "--private")] = False,
) -> None:
    """Put an exported model on the Hugging Face hub."""
    from pagoda import hub

    typer.echo(hub.push(folder, name, private))
