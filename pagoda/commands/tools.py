"""What is around the stages: costs, weights from elsewhere, parameters, the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pagoda.commands.running import interruptible_after, run
from pagoda.errors import PagodaError


def ema(
    artifact: Annotated[Path, typer.Argument(help="A teacher or generator with snapshots.")],
    sigma_rel: Annotated[
        float, typer.Option("--sigma-rel", metavar="WIDTH", help="Relative width of the average.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the new artifact goes.")],
) -> None:
    """Make the average of weights of another width, after training."""
    from pagoda.training.post_hoc import synthesise

    synthesise(artifact, sigma_rel, out)


def plan(
    ctx: typer.Context,
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of experiments/profile; otherwise the parameters."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables.")] = False,
    utilisation: Annotated[
        float, typer.Option(metavar="SHARE", help="Of the cards' peak that is reached.")
    ] = 0.35,
    tflops: Annotated[
        float | None, typer.Option(metavar="X", help="Peak of your own card, as one more column.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(metavar="TRAIN,TEST", help="How many there are, if unknown.")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Time a few steps here: hours on this machine.")
    ] = False,
) -> None:
    """Parameters, FLOPs, disk and hours of an experiment, not run."""
    from pagoda.plan.request import print_plan

    with interruptible_after():
        import torch  # noqa: F401
    print_plan(ctx.obj, profile, images, utilisation, tflops, probe, as_json)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="EDM's .pkl, or a .pt.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the artifact goes.")],
    kind: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="teacher or generator, where the file does not tell."),
    ] = None,
    resolution: Annotated[
        int, typer.Option(metavar="PIXELS", min=4, help="Of the U-Net, for a .pt.")
    ] = 64,
    head_channels: Annotated[
        int, typer.Option(metavar="N", min=1, help="Channels a head of attention, for a .pt.")
    ] = 64,
    growth_blocks: Annotated[
        int, typer.Option(metavar="N", min=0, help="Blocks after each up-sampling one, for a .pt.")
    ] = 2,
    sigma_data: Annotated[float, typer.Option(help="Of EDM's preconditioning, for a .pt.")] = 0.5,
    sigma_max: Annotated[float, typer.Option(help="Of the latents that a generator maps.")] = 80.0,
    allow_unused: Annotated[
        bool, typer.Option("--allow-unused", help="Even if some weights have no place.")
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
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="First replace params.yaml by this profile."),
    ] = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="With --profile: drop values that no profile has.")
    ] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="Write what dvc.yaml files say of code and studies.")
    ] = False,
) -> None:
    """Mend the lists of params.yaml that follow from base_res."""
    from pagoda.derive import choose, rewrite
    from pagoda.stages.root import project_root

    if stages:
        from pagoda.dvc_stages import write_stages

        typer.echo(f"written: {', '.join(write_stages()) or 'nothing, all is up to date'}")
        return
    if profile is None:
        found, what = rewrite(ctx.obj), "resolutions and growth now follow"
    else:
        found, what = choose(ctx.obj, profile, project_root(), reset), f"now profile {profile},"
    typer.echo(f"{ctx.obj}: {what} {' -> '.join(map(str, found))}")


def doctor(ctx: typer.Context) -> None:
    """Say what is wrong with this machine or configuration."""
    from pagoda.doctor import examine, show

    findings = examine(ctx.obj)
    show(findings)
    if any(finding.level == "broken" for finding in findings):
        raise typer.Exit(1)
