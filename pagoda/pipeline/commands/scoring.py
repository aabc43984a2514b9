"""Evaluation: the experiment's own stages, and any images against any others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated as An

import typer

from pagoda.errors import PagodaError
from pagoda.pipeline.commands.running import known, option, parameters, place, run, run_shared

AnyResolution = An[int | None, option("PIXELS", "One of the experiment's: run its own stage.")]
Extractor = An[
    str,
    option(
        "NAME",
        "Feature network: inception:clean, dinov2:vitl14:dgm, efficientnet:lite1, "
        "classifier:FOLDER; custom:FILE, a program, which is run",
    ),
]
Split = An[
    str | None,
    option("NAME", "Only images below a folder of this name; of an artifact, train or test."),
]
Crop = An[
    str | None, option("RECIPE", "Cut images to squares: adm, lanczos, box, lanczos_torchvision.")
]
Size = An[int | None, option("PIXELS", "Side that --crop cuts to.", min=1, max=1 << 14)]
Exif = An[bool, option(None, "Turn images as their EXIF orientation says.", "--exif")]
Count = An[
    int | None, option("N", "Images to use; of a generator, to make.", "--n", "--count", min=2)
]
Batch = An[int, option("N", "Images that the network takes at once.", min=1)]
Weights = An[Path | None, option("FILE", "Weights of the feature network, if they are elsewhere.")]
Hub = An[Path | None, option("FOLDER", "Checkout of DINOv2's repository, whose code is run.")]
Download = An[bool, option(None, "Download missing weights.", "--download")]


def reference(
    ctx: typer.Context,
    resolution: AnyResolution = None,
    images: An[Path | None, option("PATH", "Real images: folder, .zip, .tar or .npz.")] = None,
    extractor: Extractor = "inception:clean",
    out: An[Path | None, place("FOLDER", "The reference that is written.")] = None,
    split: Split = None,
    crop: Crop = None,
    size: Size = None,
    exif: Exif = False,
    n: Count = None,
    manifold: An[
        int, option("N", "Images whose features are kept, for precision and recall.", min=0)
    ] = 10_000,
    spatial: An[bool, option(None, "Keep what sFID needs, too.", "--spatial")] = False,
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
    images: An[
        Path | None,
        option("PATH", "Images: folder, .zip, .tar, .npz, SOURCE:NAME, artifact; or a generator."),
    ] = None,
    reference: An[
        Path | None,
        option("PATH", "Images, what 'pagoda reference' wrote, or published .npz statistics."),
    ] = None,
    extractor: An[
        str | None, option("NAME", "As of 'pagoda reference'; otherwise inception:clean.")
    ] = None,
    metrics: An[
        str | None,
        option(
            "NAMES", "Of fid,sfid,fid_inf,kid,prdc,is,is_adm,fd,kd,mmd; otherwise the usual ones."
        ),
    ] = None,
    n: Count = None,
    seeds: An[
        str, option("LIST", "Of a generator's latents, or of the choice of --n images: 0-2,7.")
    ] = "0",
    out: An[Path | None, place("FILE", "JSON file to write.")] = None,
    track: An[bool, option(None, "Put the values into MLflow.", "--track")] = False,
    name: An[str | None, option("TEXT", "What results call the images.")] = None,
    split: Split = None,
    reference_split: Split = None,
    crop: Crop = None,
    size: Size = None,
    exif: Exif = False,
    reference_features: An[
        str | None, option("NAME", "Feature network of published statistics.")
    ] = None,
    neighbours: An[
        int, option("N", "Neighbours, of precision, recall, density, coverage.", "-k", min=1)
    ] = 3,
    splits: An[int, option("N", "Parts, of the Inception Score.", min=1)] = 10,
    kid_subsets: An[int, option("N", "Subsets, of the kernel distance.", min=1, max=100_000)] = 100,
    kid_subset_size: An[int, option("N", "Images in each subset.", min=2)] = 1000,
    mmd_width: An[int, option("N", "Sigma, of MMD's Gaussian kernel.", min=1)] = 10,
    intervals: An[
        bool,
        option(
            None, "Add 95 % intervals over the images, of metrics that have one.", "--intervals"
        ),
    ] = False,
    captions: An[
        Path | None, option("FILE", "Captions, one an image: lines, or COCO's JSON.")
    ] = None,
    protocol: An[
        str | None, option("NAME", "How images of captions are scored: gigagan, stylegan_t.")
    ] = None,
    clip: An[str | None, option("NAME:FILE", "CLIP of open_clip that scores captions.")] = None,
    prefix: An[
        str | None, option("TEXT", "Put before each caption for CLIP; otherwise the protocol's.")
    ] = None,
    tokens: An[int, option("N", "Tokens of a caption that CLIP reads.", min=3)] = 77,
    guidance: An[
        float | None, option("W", "Guidance weight, of a model that is told captions; 1 is none.")
    ] = None,
    steps: An[
        int | None, option("N", "Noise levels, of a teacher that is told captions.", min=1)
    ] = None,
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
    from pagoda.pipeline.stages.score_text import Texts, protocol_of

    texts, asked = None, (protocol, clip, prefix, guidance, steps)
    if captions is None and any(value is not None for value in asked):
        raise PagodaError(
            "--captions is missing; --protocol, --clip, --prefix, --guidance and --steps go with it"
        )
    if (told := protocol_of(protocol)) is not None:
        crop, size, extractor = crop or told.crop, size or told.side, extractor or told.extractor
        prefix = told.prefix if prefix is None else prefix
    if captions is not None:
        texts = Texts(captions, crop, size, clip, prefix or "", tokens, guidance, steps)
    request = Request(
        Source(images or Path(), split, crop, size, exif),
        Features(extractor, batch, weights, hub, download),
        reference, reference_split, reference_features, metrics, n, seed_list(seeds),
        Settings(neighbours, splits, kid_subsets, kid_subset_size, mmd_width), name, out, intervals,
        texts,
    )  # fmt: skip
    tree = run_shared("score", request)
    if track and tree is not None:
        run("track", tree, function="add_rows")


def compare(
    images: An[Path, typer.Argument(help="Folder, .zip, .tar, .npz or artifact of images.")],
    originals: An[Path, typer.Argument(help="The same of their originals: as many, of one size.")],
    metrics: An[str, option("NAMES", "mse,psnr,ssim,hf,lpips")] = "mse,psnr,ssim,hf",
    network: An[str, option("NAME", "Network of LPIPS: alex, vgg or squeeze.")] = "alex",
    weights: An[Path | None, option("FILE", "Torchvision's weights of that network.")] = None,
    out: An[Path | None, place("FILE", "JSON file to write.")] = None,
    split: Split = None,
    originals_split: Split = None,
    crop: Crop = None,
    size: Size = None,
    exif: Exif = False,
) -> None:
    """Compare images with their originals, pair by pair."""
    from pagoda.pipeline.stages.score import Source

    first = Source(images, split, crop, size, exif)
    second = Source(originals, originals_split, crop, size, exif)
    run("compare", first, second, metrics, network, weights, out)


def verify(
    ctx: typer.Context,
    resolution: An[int, option("PIXELS", "Of a generator that class_ratio trained.")],
    out: An[Path, place("FILE", "JSON file to write.")],
    counts: An[str, option("LIST", "Of how many candidates the best is taken.")] = "1,2,4,8",
) -> None:
    """Measure the best of N samples by a learned density ratio."""
    from pagoda.pipeline.stages.verify import count_list

    config = parameters(ctx)
    run_shared("verify", config, known(config, resolution), count_list(counts), out)


def steps(
    ctx: typer.Context,
    out: An[Path, place("FILE", "JSON file to write.")],
    sigma: An[float, option("LEVEL", "Noise level that the second step begins at.")] = 0.8,
) -> None:
    """Measure one and two steps a sample where a model has both."""
    run_shared("steps", parameters(ctx), sigma, out)


def captions(
    ctx: typer.Context,
    n: An[int, option("N", "How many, of the first images.", min=1)] = 100,
    split: An[str, option("NAME", "train or test.")] = "test",
    length: An[str, option("NAME", "short or long.")] = "short",
    out: An[Path | None, place("FILE", "New text file; otherwise shown.")] = None,
    coco: An[
        Path | None, option("FILE", "A file of COCO's captions instead: one an image.")
    ] = None,
) -> None:
    """Write captions of the embedded images, or COCO's."""
    if coco is not None:
        run("score_text", coco, n, out, function="write_captions")
        return
    run("align", parameters(ctx), split, n, length, out, function="write")


def align(
    images: An[
        Path,
        typer.Argument(help="Folder, .zip, .tar, .npz or artifact, in the captions' order."),
    ],
    captions: An[Path, option("FILE", "A line an image, as 'pagoda captions' writes them.")],
    out: An[Path | None, place("FILE", "JSON file to write.")] = None,
    split: Split = None,
) -> None:
    """Count the pictures that show what their captions say."""
    from pagoda.pipeline.stages.score import Source

    run("align", Source(images, split), captions, out)


def guidance(
    ctx: typer.Context,
    out: An[Path, place("FILE", "JSON file to write.")],
    weights: An[str, option("LIST", "Guidance weights; w = 1 is none.")] = "1,1.5,2,3,4",
    resolution: An[
        int | None, option("PIXELS", "Side of the images; otherwise the teacher's.")
    ] = None,
    interval: An[
        str | None, option("LOW,HIGH", "Noise levels of the teacher that are guided; else all.")
    ] = None,
    guide: An[
        str | None,
        option("NAME", "Autoguidance by a snapshot of the teacher, or another one's folder."),
    ] = None,
) -> None:
    """Measure teacher and generator by weight of guidance."""
    from pagoda.pipeline.stages.guidance import Request

    config = parameters(ctx)
    side = config.base_res if resolution is None else known(config, resolution)
    run_shared("guidance", config, Request(weights, side, out, interval, guide))


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
