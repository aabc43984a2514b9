"""Stages of an experiment and of studies, as ``dvc repro`` runs them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated as An

import typer

from pagoda.errors import PagodaError
from pagoda.pipeline.commands.running import (
    known,
    option,
    others_ran,
    parameters,
    run,
    run_first,
    run_shared,
)

if TYPE_CHECKING:
    from pagoda.config import Config

StudyName = An[str, typer.Argument(help="Folder of the study in experiments/.")]


def downsample(
    ctx: typer.Context,
    resolution: An[int, option("PIXELS", "Side of the images, one of the experiment's.")],
) -> None:
    """Cut every image to one resolution, each from the original."""
    config = parameters(ctx)
    run_first("downsample", config, known(config, resolution))


def features(ctx: typer.Context) -> None:
    """Train the classifier that images are evaluated by."""
    _train(parameters(ctx), "features")


def autoencoder(ctx: typer.Context) -> None:
    """Train the autoencoder, where data.space is latent."""
    config = parameters(ctx)
    _check_latent(config)
    _train(config, "autoencoder")


def encode(
    ctx: typer.Context,
    resolution: An[int, option("PIXELS", "Side of the images, one of the experiment's.")],
) -> None:
    """Encode training images, where data.space is latent."""
    config = parameters(ctx)
    _check_latent(config)
    run_shared("encode", config, known(config, resolution))


def clip(ctx: typer.Context) -> None:
    """Train the CLIP that reads captions, where there are some."""
    config = parameters(ctx)
    _check_captioned(config)
    run_shared("clip", config)


def scorer(ctx: typer.Context) -> None:
    """Train the CLIP that scores samples of captions."""
    config = parameters(ctx)
    _check_captioned(config)
    run_shared("scorer", config)


def caption(
    ctx: typer.Context,
    resolution: An[int, option("PIXELS", "Side of the images, one of the experiment's.")],
) -> None:
    """Label images by captions, where text.captions says so."""
    config = parameters(ctx)
    _check_captioned(config)
    run_first("caption", config, known(config, resolution))


def _check_captioned(config: Config) -> None:
    if not config.captioned:
        raise PagodaError(
            "this experiment has classes for labels: text.captions = 'none'; "
            "'dvc exp run -S profile=text' has captions"
        )


def _check_latent(config: Config) -> None:
    if not config.latent:
        raise PagodaError(
            "this experiment models images and has no autoencoder: data.space = 'pixel'; "
            "'dvc exp run -S profile=latent' models codes"
        )


def _train(config: Config, stage: str, *sizes: int) -> None:
    """Run a stage that leaves a history, and beside it what it took of the machine."""
    from pagoda.config.paths import Paths

    name = "-".join([stage, *map(str, sizes[1:])])
    run_shared(stage, config, *sizes, system=Paths(config).system(name))


def teacher(ctx: typer.Context) -> None:
    """Train the diffusion teacher at the base resolution."""
    _train(parameters(ctx), "teacher")


def invert(ctx: typer.Context) -> None:
    """Invert real images to latents along the probability-flow ODE."""
    _train(parameters(ctx), "invert")


def distill(ctx: typer.Context) -> None:
    """Distil the one-step generator at the base resolution."""
    _train(parameters(ctx), "distill")


def grow(
    ctx: typer.Context,
    from_res: An[int, option("PIXELS", "Side of its images now.", "--from")],
    to_res: An[int, option("PIXELS", "Twice that.", "--to")],
) -> None:
    """Grow the generator to twice its resolution."""
    config = parameters(ctx)
    if {"from": from_res, "to": to_res} not in config.growth.values():
        steps = ", ".join(f"--from {g['from']} --to {g['to']}" for g in config.growth.values())
        raise PagodaError(
            f"--from {from_res} --to {to_res} is no growth step of this experiment; it has "
            + (steps or "none, because base_res = target_res")
        )
    _train(config, "grow", from_res, to_res)


def report(
    ctx: typer.Context,
    results: An[
        list[Path] | None, option("FILE", "Rows of 'pagoda evaluate --out FILE' to add; repeat.")
    ] = None,
    everything: An[
        bool,
        option(None, "The paper's tables, studies and claims instead: reports/suite/.", "--all"),
    ] = False,
    from_exp: An[
        bool, option(None, "With --all: add the experiments of 'dvc exp run'.", "--from-exp")
    ] = False,
    from_mlflow: An[
        bool, option(None, "With --all: add the runs of MLflow.", "--from-mlflow")
    ] = False,
    published: An[
        Path | None, option("FILE", "With --all: your own CSV of published figures.")
    ] = None,
) -> None:
    """Write tables, curves, sample grids and metrics.json.

    With --all, or an option that implies it: one page of everything that was run, from reports/.
    """
    if everything or from_exp or from_mlflow or published is not None:
        from pagoda.results.suite import gather

        gather(published=published, from_exp=from_exp, from_mlflow=from_mlflow)
    else:
        run("report", parameters(ctx), tuple(results or ()))


def track(
    ctx: typer.Context,
    follow: An[bool, option(None, "Keep up with running stages until Ctrl-C.", "--follow")] = False,
    interval: An[float, option("SECONDS", "Pause between two looks.", min=0.1)] = 5.0,
    studies: An[bool, option(None, "All studies below reports/ instead.", "--studies")] = False,
) -> None:
    """Put the experiment into MLflow; doing it twice adds nothing."""
    if follow and studies:
        raise PagodaError("--studies are finished, there is nothing to --follow; give one of them")
    if studies:
        from pagoda.results.study_tracking import add_studies

        add_studies()
        return
    config = parameters(ctx)
    if follow:
        run("track", config, interval, function="follow")
    else:
        run("track", config)


def variant(
    ctx: typer.Context,
    study: StudyName,
    variant: An[str, typer.Argument(help="One of its variants.")],
    seed: An[int, option("N", "Training seed.", min=0)],
) -> None:
    """Make and measure one variant of a study with one seed."""
    from pagoda.pipeline.stages.study_spec import load_study

    config, found = parameters(ctx), load_study(study)
    member = found.variant(variant)
    if member.stage != "variant":
        run_first(member.stage, config, found, member, seed)
    elif not others_ran():
        run("variant", config, found, member, seed)


def study(
    ctx: typer.Context,
    name: StudyName,
    keep: An[
        bool,
        typer.Option(
            "--keep",
            help="Keep the results that are there of runs that are not here: a study made on "
            "several machines, or in parts.",
        ),
    ] = False,
) -> None:
    """Put a study's measurements together: table, figures, summary."""
    from pagoda.pipeline.stages.study_spec import load_study

    run("study", parameters(ctx), load_study(name), keep)
