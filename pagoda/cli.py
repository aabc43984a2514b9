"""The command line: every stage is a command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

import pagoda
from pagoda import launcher, processes
from pagoda.errors import PagodaError

if TYPE_CHECKING:
    from pagoda.config import Config

_HELP = (
    "A one-step image generator, grown from a low-resolution diffusion teacher (PaGoDA).\n\n"
    "'dvc repro' runs the stages in their order and skips what is up to date; a single stage "
    "reads what the ones before it left under runs/."
)

app = typer.Typer(
    name="pagoda",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes 0.3 s to draw a help page
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Resolution = Annotated[int, typer.Option(metavar="PIXELS", help="One of the experiment's.")]


AnyResolution = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="One of the experiment's: the stage.")
]
Extractor = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="inception:clean, dinov2:vitl14:dgm, classifier:FOLDER, custom:FILE, ...",
    ),
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Only images below this folder.")]
Crop = Annotated[str | None, typer.Option(metavar="RECIPE", help="Cut images: adm, lanczos, box.")]
Size = Annotated[int | None, typer.Option(metavar="PIXELS", help="What --crop cuts to.")]
Count = Annotated[
    int | None, typer.Option("--n", "--count", metavar="N", min=2, help="Images to use.")
]
Batch = Annotated[int, typer.Option(metavar="N", min=1, help="Images a call of the network.")]
Weights = Annotated[Path | None, typer.Option(metavar="FILE", help="Weights of the extractor.")]
Hub = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Checkout of DINOv2's code.")]
Download = Annotated[bool, typer.Option("--download", help="Fetch weights that are nowhere.")]

_INTERRUPTED = 130
_GO_ON = "interrupted; run the same command again to go on"


def main() -> None:
    """Run the command line; trouble that a user can mend is one line and no traceback.

    Exit status: 0 success, 1 trouble, 2 wrong usage, 130 interrupted.
    """
    try:
        app()
    except KeyboardInterrupt:
        _exit(_INTERRUPTED, _GO_ON)
    except SystemExit as left:
        if left.code == _INTERRUPTED:
            _exit(_INTERRUPTED, _GO_ON)
        raise
    except processes.GroupLost as error:
        if processes.LAUNCHED in os.environ:  # whoever started the group says why
            raise SystemExit(1) from None
        _exit(1, f"error: {error}")
    except Exception as error:
        if line := _explain(error):
            _exit(1, f"error: {line}")
        raise


def _explain(error: Exception) -> str | None:
    """What to tell the user, None for a bug. Libraries report a full disk in their own ways."""
    if isinstance(error, PagodaError):
        return str(error)
    code, text = getattr(error, "errno", None), str(error)
    if code in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in text:
        return "no space left on the disk; free some and run the same command again"
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if memory or "can't allocate memory" in text:
        return "out of memory; close other programs or make the batches in params.yaml smaller"
    return None


def _exit(status: int, message: str) -> NoReturn:
    if status == _INTERRUPTED and not processes.first():
        raise SystemExit(status)
    sys.stderr.write(" ".join(message.split("\n")) + "\n")
    raise SystemExit(status)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"pagoda {pagoda.__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    ctx: typer.Context,
    params: Annotated[
        Path, typer.Option(metavar="FILE", help="Parameters of the experiment.")
    ] = Path("params.yaml"),
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    ctx.obj = params


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command. What typer makes of Ctrl-C differs between its versions."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None

    return app.command(function.__name__.rstrip("_"))(guarded)


def _load(ctx: typer.Context) -> Config:
    from pagoda.config import load

    return load(ctx.obj)


def _run(stage: str, *args: Any, function: str = "run") -> Any:
    """Import the stage and run it. Parameters are read before: a slip in them shows at once."""
    with _interruptible_after():
        module = importlib.import_module(f"pagoda.stages.{stage}")
    return getattr(module, function)(*args)


def _run_shared(stage: str, *args: Any, function: str = "run") -> Any:
    """Run a stage that several processes can share: start them, join them, or run it alone.

    Returns:
        What the stage returns here; None in the process that only started the others.
    """
    status = launcher.run(sys.argv[1:])
    if status:
        raise typer.Exit(status)
    if status is None:
        with processes.group():
            return _run(stage, *args, function=function)
    return None


@contextmanager
def _interruptible_after() -> Iterator[None]:
    """Hold Ctrl-C back until the block is over; while torch is imported it can get lost."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # a shell started this in the background, where Ctrl-C is not for us
        return
    pressed: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


def _known(config: Config, resolution: int) -> int:
    if resolution not in config.resolutions:
        raise PagodaError(
            f"--resolution = {resolution}; it must be one of {config.resolutions}, which follow "
            "from base_res and target_res in params.yaml"
        )
    return resolution


@_command
def downsample(ctx: typer.Context, resolution: Resolution) -> None:
    """Cut every image to one resolution, each from the original."""
    config = _load(ctx)
    _run("downsample", config, _known(config, resolution))


@_command
def features(ctx: typer.Context) -> None:
    """Train the embedded feature network, for evaluation only."""
    os.environ.update(launcher.adopt_slurm(os.environ))
    if processes.rank() == 0:  # of a group that a launcher started the others have nothing to do
        _run("features", _load(ctx))


@_command
def reference(
    ctx: typer.Context,
    resolution: AnyResolution = None,
    images: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Real images: folder, .zip or .npz.")
    ] = None,
    extractor: Extractor = "inception:clean",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where it goes.")] = None,
    split: Split = None,
    crop: Crop = None,
    size: Size = None,
    n: Count = None,
    manifold: Annotated[
        int, typer.Option(metavar="N", min=0, help="Images whose features are kept.")
    ] = 10_000,
    spatial: Annotated[bool, typer.Option("--spatial", help="For sFID too.")] = False,
    batch: Batch = 64,
    weights: Weights = None,
    hub: Hub = None,
    download: Download = False,
) -> None:
    """Feature statistics of real images at one size."""
    if _ran_stage(ctx, "reference", resolution, images):
        return
    if out is None:
        raise PagodaError("--out is missing; it names the folder that the reference goes to")
    from pagoda.stages.request import Features, Source

    source = Source(images or Path(), split, crop, size)
    how = Features(extractor, batch, weights, hub, download)
    _run_shared("score", source, how, n, manifold, spatial, out, function="make_reference")


@_command
def teacher(ctx: typer.Context) -> None:
    """Train the diffusion teacher at the base resolution."""
    _run_shared("teacher", _load(ctx))


@_command
def invert(ctx: typer.Context) -> None:
    """Invert real images to latents along the probability-flow ODE."""
    _run_shared("invert", _load(ctx))


@_command
def distill(ctx: typer.Context) -> None:
    """Distil the one-step generator at the base resolution."""
    _run_shared("distill", _load(ctx))


@_command
def grow(
    ctx: typer.Context,
    from_res: Annotated[int, typer.Option("--from", metavar="PIXELS", help="Where it ends now.")],
    to_res: Annotated[int, typer.Option("--to", metavar="PIXELS", help="Twice that.")],
) -> None:
    """Grow the generator by one doubling of the resolution."""
    config = _load(ctx)
    if {"from": from_res, "to": to_res} not in config.growth.values():
        steps = ", ".join(f"--from {g['from']} --to {g['to']}" for g in config.growth.values())
        raise PagodaError(
            f"--from {from_res} --to {to_res} is no growth step of this experiment; it has "
            + (steps or "none, because base_res = target_res")
        )
    _run_shared("grow", config, from_res, to_res)


@_command
def evaluate(
    ctx: typer.Context,
    resolution: AnyResolution = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Images (folder, .zip, .npz) or a generator to score."),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="A reference, published .npz statistics, or images."),
    ] = None,
    extractor: Extractor = "inception:clean",
    metrics: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="fid,sfid,fid_inf,kid,prdc,is,is_adm,fd,kd,mmd,..."),
    ] = None,
    n: Count = None,
    seeds: Annotated[
        str, typer.Option(metavar="LIST", help="Of a generator's latents, e.g. 0,1,2.")
    ] = "0",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file to write.")] = None,
    track: Annotated[bool, typer.Option("--track", help="Put the values into MLflow.")] = False,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="Name in the rows.")] = None,
    split: Split = None,
    reference_split: Split = None,
    crop: Crop = None,
    size: Size = None,
    reference_features: Annotated[
        str | None, typer.Option(metavar="NAME", help="Extractor behind published statistics.")
    ] = None,
    neighbours: Annotated[int, typer.Option("-k", min=1, help="Of precision and recall.")] = 3,
    splits: Annotated[int, typer.Option(min=1, help="Of the Inception Score.")] = 10,
    kid_subsets: Annotated[int, typer.Option(min=1, help="Of the kernel distance.")] = 100,
    kid_subset_size: Annotated[int, typer.Option(min=2, help="Images in each.")] = 1000,
    mmd_width: Annotated[int, typer.Option(min=1, help="Sigma of the Gaussian kernel.")] = 10,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="95 % intervals over the images, where there are.")
    ] = False,
    batch: Batch = 64,
    weights: Weights = None,
    hub: Hub = None,
    download: Download = False,
) -> None:
    """Score generators, or any images, against real ones."""
    if _ran_stage(ctx, "evaluate", resolution, images):
        return
    if reference is None:
        raise PagodaError("--reference is missing; it names what --images are held against")
    from pagoda.evaluation.settings import Settings
    from pagoda.stages.request import Features, Request, Source, seed_list

    request = Request(
        Source(images or Path(), split, crop, size),
        Features(extractor, batch, weights, hub, download),
        reference, reference_split, reference_features, metrics, n, seed_list(seeds),
        Settings(neighbours, splits, kid_subsets, kid_subset_size, mmd_width), name, out, intervals,
    )  # fmt: skip
    tree = _run_shared("score", request)
    if track and tree is not None:
        _run("track", tree, function="add_rows")


@_command
def compare(
    images: Annotated[Path, typer.Argument(help="Folder, .zip or .npz.")],
    originals: Annotated[Path, typer.Argument(help="As many, of the same size.")],
    metrics: Annotated[
        str, typer.Option(metavar="NAMES", help="mse,psnr,ssim,hf,lpips")
    ] = "mse,psnr,ssim,hf",
    network: Annotated[str, typer.Option(metavar="NAME", help="Of LPIPS.")] = "alex",
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Torchvision's weights of it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON file to write.")] = None,
    crop: Crop = None,
    size: Size = None,
) -> None:
    """Compare images with their originals, pair by pair."""
    from pagoda.stages.request import Source

    first, second = (Source(path, None, crop, size) for path in (images, originals))
    _run("compare", first, second, metrics, network, weights, out)


def _ran_stage(ctx: typer.Context, stage: str, resolution: int | None, images: Path | None) -> bool:
    """Run the experiment's stage of a command that has one, unless images of any kind are named."""
    if (resolution is None) == (images is None):
        raise PagodaError(
            "give either --resolution, for the experiment's own stage, or --images, for any images"
        )
    if resolution is None:
        return False
    config = _load(ctx)
    _run_shared(stage, config, _known(config, resolution))
    return True


@_command
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
    """Write tables, curves, sample sheets and metrics.json.

    With --all, or an option that implies it: one page of everything that was run, from reports/.
    """
    if everything or from_exp or from_mlflow or published is not None:
        from pagoda.gather import gather

        gather(published=published, from_exp=from_exp, from_mlflow=from_mlflow)
    else:
        _run("report", _load(ctx), tuple(results or ()))


@_command
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
    config = _load(ctx)
    if follow:
        _run("track", config, interval, function="follow")
    else:
        _run("track", config)


@_command
def arm(
    ctx: typer.Context,
    study: Annotated[str, typer.Argument(help="Folder of the study in experiments/.")],
    arm: Annotated[str, typer.Argument(help="One of its arms.")],
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Training seed.")],
) -> None:
    """Train and measure one arm of a study with one seed."""
    from pagoda.stages.study_spec import find_arm, load_study

    config, found = _load(ctx), load_study(study)
    _run("arm", config, found, find_arm(found, arm), seed)


@_command
def study(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="Folder of the study in experiments/.")],
) -> None:
    """Put a study's measurements together: table, figures, summary."""
    from pagoda.stages.study_spec import load_study

    _run("study", _load(ctx), load_study(name))


@_command
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


@_command
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

    with _interruptible_after():
        import torch  # noqa: F401
    print_plan(ctx.obj, profile, images, utilisation, tflops, probe, as_json)


@_command
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
    for line in _run("import_weights", file, out, options):
        typer.echo(line)


@_command
def derive(
    ctx: typer.Context,
    profile: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="First replace params.yaml by this profile."),
    ] = None,
) -> None:
    """Mend the lists of params.yaml that follow from base_res."""
    from pagoda.derive import choose, rewrite
    from pagoda.stages.root import project_root

    found = rewrite(ctx.obj) if profile is None else choose(ctx.obj, profile, project_root())
    ladder = " -> ".join(map(str, found))
    typer.echo(f"{ctx.obj}: resolutions and growth now follow {ladder}")


@_command
def doctor(ctx: typer.Context) -> None:
    """Say what is wrong with this machine or configuration."""
    from pagoda.doctor import examine, show

    findings = examine(ctx.obj)
    show(findings)
    if any(finding.level == "broken" for finding in findings):
        raise typer.Exit(1)
