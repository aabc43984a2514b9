"""Stages of an experiment and of studies, as ``dvc repro`` runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pagoda.commands.running import known, others_ran, parameters, run, run_first, run_shared
from pagoda.errors import PagodaError


def downsample(
    ctx: typer.Context,
    resolution: Annotated[int, typer.Option(metavar="PIXELS", help="One of the experiment's.")],
) -> None:
    """Cut every image to one resolution, each from the original."""
    config = parameters(ctx)
    run_first("downsample", config, known(config, resolution))


def features(ctx: typer.Context) -> None:
    """Train the embedded feature network, for evaluation only."""
    run_first("features", parameters(ctx))


def teacher(ctx: typer.Context) -> None:
    """Train the diffusion teacher at the base resolution."""
    run_shared("teacher", parameters(ctx))


def invert(ctx: typer.Context) -> None:
    """Invert real images to latents along the probability-flow ODE."""
    run_shared("invert", parameters(ctx))


def distill(ctx: typer.Context) -> None:
    """Distil the one-step generator at the base resolution."""
    run_shared("distill", parameters(ctx))


def grow(
    ctx: typer.Context,
    from_res: Annotated[int, typer.Option("--from", metavar="PIXELS", help="Where it ends now.")],
    to_res: Annotated[int, typer.Option("--to", metavar="PIXELS", help="Twice that.")],
) -> None:
    """Grow the generator by one doubling of the resolution."""
    config = parameters(ctx)
    if {"from": from_res, "to": to_res} not in config.growth.values():
        steps = ", ".join(f"--from {g['from']} --to {g['to']}" for g in config.growth.values())
        raise PagodaError(
            f"--from {from_res} --to {to_res} is no growth step of this experiment; it has "
            + (steps or "none, because base_res = target_res")
        )
    run_shared("grow", config, from_res, to_res)


def report(
    ctx: typer.Context,
    results: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Rows of 'pagoda evaluate --out FILE' to add; repeat."),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="The paper's tables, studies and claims instead: reports/suite/."
        ),
    ] = False,
    from_exp: Annotated[
        bool, typer.Option("--from-exp", help="With --all: add the experiments of 'dvc exp run'.")
    ] = False,
    from_mlflow: Annotated[
        bool, typer.Option("--from-mlflow", help="With --all: add the runs of MLflow.")
    ] = False,
    published: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --all: your own CSV of published figures."),
    ] = None,
) -> None:
    """Write tables, curves, sample grids and metrics.json.

    With --all, or an option that implies it: one page of everything that was run, from reports/.
    """
    if everything or from_exp or from_mlflow or published is not None:
        from pagoda.gather import gather

        gather(published=published, from_exp=from_exp, from_mlflow=from_mlflow)
    else:
        run("report", parameters(ctx), tuple(results or ()))


def track(
    ctx: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep up with running stages until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Pause between two looks.")
    ] = 5.0,
    studies: Annotated[
        bool, typer.Option("--studies", help="All studies below reports/ instead.")
    ] = False,
) -> None:
    """Put the experiment into MLflow; doing it twice adds nothing."""
    if follow and studies:
        raise PagodaError("--studies are finished, there is nothing to --follow; give one of them")
    if studies:
        from pagoda.study_tracking import add_studies

        add_studies()
        return
    config = parameters(ctx)
    if follow:
        run("track", config, interval, function="follow")
    else:
        run("track", config)


def variant(
    ctx: typer.Context,
    study: Annotated[str, typer.Argument(help="Folder of the study in experiments/.")],
    variant: Annotated[str, typer.Argument(help="One of its variants.")],
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Training seed.")],
) -> None:
    """Train and measure one variant of a study with one seed."""
    from pagoda.stages.study_spec import load_study

    config, found = parameters(ctx), load_study(study)
    member = found.variant(variant)
    if not others_ran():
        run("variant", config, found, member, seed)


def study(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Folder of the study in experiments/.")],
) -> None:
    """Put a study's measurements together: table, figures, summary."""
    from pagoda.stages.study_spec import load_study

    run("study", parameters(ctx), load_study(name))
