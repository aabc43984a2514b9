"""Evaluation: the experiment's own stages, and any images against any others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pagoda.errors import PagodaError
from pagoda.pipeline.commands.running import known, parameters, run, run_shared

AnyResolution = Annotated[
    int | None, typer.Option(metavar="PIXELS", help="One of the experiment's: the stage.")
]
Extractor = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="inception:clean, dinov2:vitl14:dgm, classifier:FOLDER; custom:FILE, which is run",
    ),
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Only images below this folder.")]
Crop = Annotated[str | None, typer.Option(metavar="RECIPE", help="Cut images: adm, lanczos, box.")]
Size = Annotated[int | None, typer.Option(metavar="PIXELS", help="What --crop cuts to.")]
Exif = Annotated[
    bool, typer.Option("--exif", help="Turn files as their EXIF says, as data.exif does.")
]
Count = Annotated[
    int | None, typer.Option("--n", "--count", metavar="N", min=2, help="Images to use.")
]
Batch = Annotated[int, typer.Option(metavar="N", min=1, help="Images a call of the network.")]
Weights = Annotated[Path | None, typer.Option(metavar="FILE", help="Weights of the extractor.")]
Hub = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Checkout of DINOv2's code.")]
Download = Annotated[bool, typer.Option("--download", help="Download missing weights.")]


def reference(
    ctx: typer.Context,
    resolution: AnyResolution = None,
    images: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Real images: folder, .zip, .tar or .npz.")
    ] = None,
    extractor: Extractor = "inception:clean",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where it goes.")] = None,
    split: Split = None,
    crop: Crop = None,
    size: Size = None,
    exif: Exif = False,
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
    from pagoda.pipeline.stages.score import Features, Source

    source = Source(images or Path(), split, crop, size, exif)
    how = Features(extractor, batch, weights, hub, download)
    run_shared("score", source, how, n, manifold, spatial, out, function="make_reference")


def evaluate(
    ctx: typer.Context,
    resolution: AnyResolution = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Images: folder, .zip, .tar, .npz, SOURCE:NAME, artifact."
        ),
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
    exif: Exif = False,
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
    """Measure generators, or any images, against real ones."""
    if _ran_stage(ctx, "evaluate", resolution, images):
        return
    if reference is None:
        raise PagodaError("--reference is missing; it names what --images are compared with")
    from pagoda.evaluation.metrics.base import Settings
    from pagoda.pipeline.stages.score import Features, Request, Source, seed_list

    request = Request(
        Source(images or Path(), split, crop, size, exif),
        Features(extractor, batch, weights, hub, download),
        reference, reference_split, reference_features, metrics, n, seed_list(seeds),
        Settings(neighbours, splits, kid_subsets, kid_subset_size, mmd_width), name, out, intervals,
    )  # fmt: skip
    tree = run_shared("score", request)
    if track and tree is not None:
        run("track", tree, function="add_rows")


def compare(
    images: Annotated[Path, typer.Argument(help="Folder, .zip, .tar or .npz.")],
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
    exif: Exif = False,
) -> None:
    """Compare images with their originals, pair by pair."""
    from pagoda.pipeline.stages.score import Source

    first, second = (Source(path, None, crop, size, exif) for path in (images, originals))
    run("compare", first, second, metrics, network, weights, out)


def _ran_stage(ctx: typer.Context, stage: str, resolution: int | None, images: Path | None) -> bool:
    """Run the experiment's stage of a command that has one, unless images of any kind are named."""
    if (resolution is None) == (images is None):
        raise PagodaError(
            "give either --resolution, for the experiment's own stage, or --images, for any images"
        )
    if resolution is None:
        return False
    config = parameters(ctx)
    run_shared(stage, config, known(config, resolution))
    return True
