"""One step in pixels, grown, beside one step on codes, decoded, at the same size of images.

    python -m benchmarks.latent_speed [--sizes 32,64,...] [--batches 1,16] [--out FOLDER]

The same U-Net makes features of an eighth of the images' side in both. In pixels three doublings of
growth follow (PaGoDA, section 3.3), on codes an autoencoder's decoder of factor 8: one in the shape
of TAESD as wide as the growth, TAESD's own (width 64, 3 blocks) and, with ``diffusers``, Stable
Diffusion's (AutoencoderKL). Parts take turns, eager, in float32, warm; times are medians with the
95 % interval of the median. Beside each stand the operations of an image, counted on shapes alone,
and those of the published sizes: the generator of the profile ``imagenet`` at 512, and LCM's one
step (the U-Net and decoder of Stable Diffusion 1.5). Weights are random; no time depends on them.
FOLDER (``reports/speed/codes``) gets ``latent_speed.md``, ``.csv``, ``.png`` and ``.json``, from
which the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.timing import (
    Results,
    interleaved,
    kernels,
    machine,
    median_interval,
    with_own_kernels,
)

ROOT = Path(__file__).resolve().parents[1]
FACTOR, CODES = 8, 4
PIXELS, EQUAL, TAESD, KL = (
    "pixels, grown", "codes, decoder as wide as growth", "codes, TAESD's decoder",
    "codes, Stable Diffusion's decoder",
)  # fmt: skip
BASE, GROWTH, DECODER = "base", "growth", "decoder"
COLUMNS = ("size", "batch", "way", "part", "ms_an_image", "low", "high", "gflop_an_image")
SD_UNET: dict[str, Any] = {
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "layers_per_block": 2,
    "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
    "attention_head_dim": 8, "time_cond_proj_dim": 256,
}  # fmt: skip
"""Stable Diffusion 1.5's U-Net with LCM's embedding of the guidance."""
SD_AUTOENCODER: dict[str, Any] = {
    "block_out_channels": [128, 256, 512, 512], "latent_channels": 4, "layers_per_block": 2,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip


def networks(size: int, channels: int, device: str) -> Any:
    """The U-Net of an eighth of ``size``, in pixels with three doublings and on codes."""
    import torch

    from pagoda.networks.generator import Generator
    from pagoda.networks.unet import UNetSpec

    side = size // FACTOR
    levels = max(1, (side // 4).bit_length())
    mult = (1, 2, 2, 2, 2)[:levels]

    def made(levels: int, image_channels: int) -> Generator:
        spec = UNetSpec(side, channels, mult, 1, (8, 4), 32, 0.0, 10, 1.0,
                        image_channels=image_channels)  # fmt: skip
        grown = [(channels, 2)] * levels
        return Generator(spec, grown, sigma_max=80.0, sigma_data=0.5, output_scale=1.0)

    with torch.device(device):
        return made(3, 3).eval(), made(0, CODES).eval()


def decoders(channels: int, device: str) -> dict[str, Callable[..., Any]]:
    """What decodes codes of factor 8; Stable Diffusion's where diffusers is installed."""
    import torch

    from pagoda.errors import PagodaError
    from pagoda.networks.autoencoder import (
        AutoencoderSpec,
        conv_autoencoder,
        diffusers_autoencoder,
    )

    with torch.device(device):
        specs = {EQUAL: (channels, 2), TAESD: (64, 3)}
        found = {name: conv_autoencoder(AutoencoderSpec(FACTOR, CODES, width, blocks)).eval()
                 for name, (width, blocks) in specs.items()}  # fmt: skip
        try:
            found[KL] = diffusers_autoencoder("AutoencoderKL", SD_AUTOENCODER).eval()
        except PagodaError as error:
            print(f"without {KL}: {error}", file=sys.stderr)
    return {name: network.decode for name, network in found.items()}


def parts(
    size: int, batch: int, channels: int, device: str
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(way, part, call) of every part, with its inputs ready."""
    import torch

    pixel, codes = networks(size, channels, device)
    side = size // FACTOR
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    z = {c: torch.randn(batch, c, side, side, device=device) for c in (3, CODES)}
    noise = torch.ones(batch, device=device)
    with torch.inference_mode():
        emb = pixel.trunk.embed(noise, labels)
        h = pixel.trunk(z[3], emb)

    def base() -> Any:
        return pixel.trunk(z[3], pixel.trunk.embed(noise, labels))

    def growth() -> Any:
        x = h
        for level in pixel.levels:
            x = level(x, emb)
        return pixel.head(x)

    yield PIXELS, BASE, base
    yield PIXELS, GROWTH, growth
    yield EQUAL, BASE, lambda: codes(z[CODES], labels)
    for name, decode in decoders(channels, device).items():
        yield name, DECODER, partial(decode, z[CODES])


def counted(size: int, channels: int) -> dict[tuple[str, str], float]:
    """GFLOP an image of every part."""
    from pagoda.pipeline.stages.compute import forward_flops

    return {(way, part): forward_flops(call) / 1e9 for way, part, call in
            parts(size, 1, channels, "meta")}  # fmt: skip


def published() -> list[tuple[str, float, float]]:
    """(what, GFLOP of the base, GFLOP of growth or decoder) at 512, of the published sizes."""
    import torch

    from pagoda.config import parse
    from pagoda.pipeline.derive import profile_tree
    from pagoda.pipeline.stages.compute import META, Untrained, forward_flops

    config = parse(profile_tree("imagenet", ROOT))
    at = Untrained(config, 1000, 1)
    base, top = (at.call(at.generator(r), config.base_res) / 1e9 for r in (64, 512))
    found = [("PaGoDA at its size, 64 to 512", base, top - base)]
    try:
        import diffusers
    except ImportError:
        return found
    with META:
        unet = diffusers.UNet2DConditionModel(**SD_UNET).eval()
        x, t = torch.zeros(1, 4, 64, 64), torch.zeros(1)
        told, w = torch.zeros(1, 77, 768), torch.zeros(1, 256)
        decode = decoders(8, "meta")[KL]
        step = forward_flops(lambda: unet(x, t, told, timestep_cond=w)) / 1e9
        last = forward_flops(decode, x) / 1e9
    return [*found, ("LCM (Stable Diffusion 1.5), text encoder left out", step, last)]


def measure(given: argparse.Namespace, results: Results) -> None:
    """Every case that ``results`` lack."""
    import torch

    for size in given.sizes:
        cases = {batch: f"{size}x{size}, batch {batch}" for batch in given.batches}
        missing = {batch: case for batch, case in cases.items() if not results.has(case)}
        flops = counted(size, given.channels) if missing else {}
        for batch, case in missing.items():
            jobs = {}
            for way, part, call in parts(size, batch, given.channels, given.device):
                if way == KL and size * size * batch > given.largest_kl**2:
                    continue
                jobs[f"{way}|{part}"] = call
            with torch.inference_mode():
                rows = interleaved(case, jobs, batch, given.repeats, warm=2)
            facts = [dict(zip(("way", "part"), r["implementation"].split("|"), strict=True))
                     for r in rows]  # fmt: skip
            results.add([r | f | {"size": size, "gflop": flops[f["way"], f["part"]]}
                         for r, f in zip(rows, facts, strict=True)])  # fmt: skip
            print(case, file=sys.stderr, flush=True)


def bars(results: Results, size: int, batch: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Rows by way and part of one case; the base of codes is that of every way with a decoder."""
    rows = [r for r in results.rows if r.get("size") == size and r["images"] == batch]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["way"], {})[row["part"]] = row
    shared = found.get(EQUAL, {}).get(BASE)
    for way in (TAESD, KL):
        if way in found and shared is not None:
            found[way] = {BASE: shared, **found[way]}
    return found


def write(results: Results, given: argparse.Namespace, folder: Path) -> str:
    """Put page, table and figure into ``folder``; the page's text."""
    from pagoda import outputs

    c, cases = results.conditions, [(s, b) for s in given.sizes for b in given.batches]
    where = c["gpu"] or f"{c['threads']} of {c['cores']} CPU cores"
    lines, table = [], []
    for size, batch in cases:
        shown = bars(results, size, batch)
        whole = {way: sum(statistics.median(r["wall_s"]) for r in of.values())
                 for way, of in shown.items()}  # fmt: skip
        for way, of in shown.items():
            for part, row in of.items():
                ms = (1e3 * s / batch for s in median_interval(row["wall_s"]))
                numbers = [f"{v:.4g}" for v in (*ms, row["gflop"])]
                table.append([size, batch, way, part, *numbers])
            each = " + ".join(f"{1e3 * statistics.median(r['wall_s']) / batch:.2f}"
                              for r in of.values())  # fmt: skip
            gflop = " + ".join(f"{r['gflop']:.3g}" for r in of.values())
            over = whole[way] / whole[PIXELS]
            lines.append(f"| {size}x{size} | {batch} | {way} | {each} | {gflop} | {over:.2f} |")
    from benchmarks.sampling_speed_page import to_csv

    outputs.write_text(folder / "latent_speed.csv", to_csv(COLUMNS, table))
    draw(results, given, folder / "latent_speed.png")
    text = "\n".join([
        "# One step in pixels and on codes", "",
        f"{where} ({c['processor']}), torch "
        f"{c['versions']['torch']}, code {c['revision']}; width {c['channels']}, random weights, "
        f"float32, {c['repeats']} turns of all parts, warm. Each cell is the base plus what makes "
        "images of it: growth, or the decoder. Over: the time of both over that of pixels, grown.",
        "", "![Parts](latent_speed.png)", "",
        "| images | batch | way | ms an image | GFLOP an image | over |",
        "|---|---:|---|---:|---:|---:|", *lines, "",
        "Published sizes, counted, 512x512, one step:", "",
        "| | base, GFLOP | growth or decoder, GFLOP | both |", "|---|---:|---:|---:|",
        *(f"| {name} | {a:,.0f} | {b:,.0f} | {a + b:,.0f} |" for name, a, b in published()), "",
    ])  # fmt: skip
    outputs.write_text(folder / "latent_speed.md", text)
    return text


def draw(results: Results, given: argparse.Namespace, path: Path) -> None:
    """Stacked bars, a panel a batch: each part's time over that of one step in pixels, grown.

    A bar that is longer than the axis ends there, with its length in figures.
    """
    from pagoda.results import style

    ways = {PIXELS: "", EQUAL: "", TAESD: "///", KL: "xxx"}
    colours = {BASE: style.BLACK, GROWTH: style.BLUE, DECODER: style.VERMILION}
    longest = 2.6
    with style.applied():
        figure, axes = style.panels(len(given.batches) + 1, len(given.batches) + 1, (3.0, 2.8))
        for axis, batch in zip(axes, given.batches, strict=False):
            for i, size in enumerate(given.sizes):
                shown = bars(results, size, batch)
                unit = sum(statistics.median(r["wall_s"]) for r in shown[PIXELS].values())
                for k, way in enumerate(w for w in ways if w in shown):
                    bottom, x = 0.0, i + 0.2 * k - 0.3
                    for part, row in shown[way].items():
                        height = statistics.median(row["wall_s"]) / unit
                        axis.bar(x, height, 0.18, bottom, color=colours[part], edgecolor="white",
                                 hatch=ways[way] if part == DECODER else "",
                                 linewidth=0.3)  # fmt: skip
                        bottom += height
                    if bottom > longest:
                        axis.text(x, longest, f"{bottom:.0f}", ha="center", va="bottom", size=6)
            axis.set_ylim(0, longest)
            axis.set_xticks(range(len(given.sizes)), [str(s) for s in given.sizes])
            axis.set_xlabel("pixels a side")
            axis.set_title(f"batch {batch}", pad=12)
        axes[0].set_ylabel("time over pixels, grown")
        marks = [(BASE, colours[BASE], ""), (GROWTH, colours[GROWTH], ""),
                 *((f"{DECODER}: {text}", colours[DECODER], ways[way]) for way, text in (
                     (EQUAL, "as wide"), (TAESD, "TAESD"), (KL, "Stable Diffusion")))]  # fmt: skip
        for text, colour, hatch in marks:
            axes[-1].bar([0], [0], color=colour, hatch=hatch, edgecolor="white", label=text)
        axes[-1].axis("off")
        axes[-1].legend(loc="center left", bbox_to_anchor=(-0.2, 0.5))
        style.save(figure, path)


def main() -> None:
    given = arguments()
    with_own_kernels("benchmarks.latent_speed", given.threads)
    import torch

    from pagoda.config.revision import package_revision

    torch.manual_seed(0)
    torch.set_num_threads(given.threads or torch.get_num_threads())
    conditions = {
        "benchmark": "one step in pixels and on codes", "device": given.device,
        "channels": given.channels, "repeats": given.repeats, "revision": package_revision(),
        **machine("diffusers"), "blas": kernels(),
    }  # fmt: skip
    results = Results(given.out / "latent_speed.json", conditions)
    measure(given, results)
    print(write(results, given, given.out))


def arguments() -> argparse.Namespace:
    """What was asked for."""

    def numbers(text: str) -> list[int]:
        return [int(n) for n in text.split(",")]

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=numbers, default=[32, 64, 128, 256, 512], metavar="N,...")
    parser.add_argument("--batches", type=numbers, default=[1, 16], metavar="N,...")
    parser.add_argument("--channels", type=int, default=32, help="width of U-Net and growth")
    parser.add_argument("--repeats", type=int, default=9, help="turns of every case")
    parser.add_argument("--largest-kl", type=int, default=128, metavar="SIDE",
                        help="Stable Diffusion's decoder is timed up to so many pixels a side of "
                             "one image, or as many pixels of a batch; counted always")  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="of torch; all cores")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "speed" / "codes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
