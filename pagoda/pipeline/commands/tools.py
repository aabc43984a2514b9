"""What is around the stages: costs, weights from elsewhere, parameters, the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated as An

import typer

from pagoda.errors import PagodaError
from pagoda.pipeline.commands.running import interruptible_after, option, place, run

Text = str | None


def ema(
    artifact: An[Path, typer.Argument(help="A teacher or generator with snapshots.")],
    sigma_rel: An[
        float,
        option(
            "WIDTH", "Of the average, relative to the length of training (EDM2).", "--sigma-rel"
        ),
    ],
    out: An[Path, place("FOLDER", "Where the new artifact goes.")],
) -> None:
    """Average a trained model's weights over another length."""
    from pagoda.artifacts import peek
    from pagoda.provenance import MODELS, check_model, known_of
    from pagoda.training.post_hoc import synthesise

    check_model(artifact)
    synthesise(artifact, sigma_rel, out, known_of(peek(artifact, *MODELS)))


def plan(
    ctx: typer.Context,
    profile: An[Text, option("NAME", "Of experiments/profile; otherwise the parameters.")] = None,
    as_json: An[bool, option(None, "JSON instead of tables.", "--json")] = False,
    utilisation: An[
        float, option("FRACTION", "Of the cards' peak speed, that training reaches.")
    ] = 0.35,
    tflops: An[float | None, option("X", "Peak of your own card, as one more column.")] = None,
    images: An[
        Text, option("TRAIN,TEST", "Numbers of images, where they are not known yet.")
    ] = None,
    probe: An[
        bool, option(None, "Time a few steps here: hours on this machine.", "--probe")
    ] = False,
) -> None:
    """Parameters, FLOPs, disk and hours of an experiment, not run."""
    from pagoda.pipeline.plan.request import print_plan

    with interruptible_after():
        import torch  # noqa: F401
    print_plan(ctx.obj, profile, images, utilisation, tflops, probe, as_json)


def import_(
    file: An[Path, typer.Argument(metavar="FILE", help="EDM's .pkl, or a .pt.")],
    out: An[Path, place("FOLDER", "Where the new artifact goes.")],
    kind: An[Text, option("KIND", "teacher or generator, where the file does not say.")] = None,
    resolution: An[int, option("PIXELS", "Of the U-Net, for a .pt.", min=4)] = 64,
    head_channels: An[int, option("N", "Channels a head of attention, for a .pt.", min=1)] = 64,
    growth_blocks: An[int, option("N", "Blocks after each up-sampling one, for a .pt.", min=0)] = 2,
    sigma_data: An[float, option("X", "Of EDM's preconditioning, for a .pt.")] = 0.5,
    sigma_max: An[float, option("X", "Noise level of the latents that a generator maps.")] = 80.0,
    allow_unused: An[
        bool, option(None, "Even if some weights have no place.", "--allow-unused")
    ] = False,
) -> None:
    """Turn released weights into an artifact, running none of it.

    EDM (ADM network), Consistency Models' edm_imagenet64_ema.pt, PaGoDA's decoder_ema_*.pt.
    """
    if kind not in (None, "teacher", "generator"):
        raise PagodaError(f"--kind {kind}; it is teacher or generator")
    from pagoda.weights.converted import Options

    options = Options(
        kind, resolution, head_channels, growth_blocks, sigma_data, sigma_max, allow_unused
    )
    for line in run("import_weights", file, out, options):
        typer.echo(line)


def derive(
    ctx: typer.Context,
    profile: An[Text, option("NAME", "First replace params.yaml by this profile.")] = None,
    reset: An[
        bool, option(None, "With --profile: drop values that no profile has.", "--reset")
    ] = False,
    stages: An[
        bool, option(None, "Write dvc.yaml files: code of stages, variants of studies.", "--stages")
    ] = False,
) -> None:
    """Make keys of params.yaml that follow from others fit."""
    from pagoda.config.root import project_root
    from pagoda.pipeline.derive import choose, rewrite

    if stages:
        from pagoda.pipeline.dvc_stages import write_stages

        typer.echo(f"written: {', '.join(write_stages()) or 'nothing, all is up to date'}")
        return
    if profile is None:
        found, what = rewrite(ctx.obj), "resolutions, growth, code and space now follow"
    else:
        found, what = choose(ctx.obj, profile, project_root(), reset), f"now profile {profile},"
    typer.echo(f"{ctx.obj}: {what} {' -> '.join(map(str, found))}")


def new_profile(
    images: An[str, option("PATH", "Folder or archive (zip, tar, npz) of your images.")],
    name: An[str, option("NAME", "Of the profile, and of its folders of results.")] = "mine",
    base: An[int | None, option("PIXELS", "Side of the teacher's images; else what fits.")] = None,
    target: An[int | None, option("PIXELS", "Side of the largest; else what fits.")] = None,
    device: An[Text, option("KIND", "cpu or gpu; else what this machine has.")] = None,
    replace: An[bool, option(None, "Replace a profile of that name.", "--replace")] = False,
    probe: An[
        bool, option(None, "Time a few steps here, for the hours.", "--probe/--no-probe")
    ] = True,
) -> None:
    """Write a profile for your own images, and its cost.

    Classes, sizes, held-out part, resolutions that fit, cost on this machine.
    """
    from pagoda.config.root import project_root
    from pagoda.pipeline.new_profile import write

    if device not in (None, "cpu", "gpu"):
        raise PagodaError(f"--device {device}; it is cpu or gpu")
    with interruptible_after():
        import torch
    kind = device or ("gpu" if torch.cuda.is_available() else "cpu")
    told = write(images, name, project_root(), kind, base=base, target=target, replace=replace,
                 probed=probe)  # fmt: skip
    typer.echo("\n".join(told))


def doctor(ctx: typer.Context) -> None:
    """Say what is wrong with this machine or configuration."""
    from pagoda.pipeline.doctor import examine, show

    findings = examine(ctx.obj)
    show(findings)
    if any(finding.level == "broken" for finding in findings):
        raise typer.Exit(1)
