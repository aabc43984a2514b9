"""Data preparation and loading beside EDM's, and a store of a million images in bounded memory.

    python benchmarks/data.py loader --edm EDM
    python benchmarks/data.py downsample --edm EDM --images IMAGES.zip [--edm2 EDM2]
    python benchmarks/data.py scaling --images IMAGES.zip --copies 12 --out RESULTS.json
    python benchmarks/data.py formats --images IMAGES.zip
    python benchmarks/data.py million --folder FOLDER

EDM is a checkout of NVlabs/edm, EDM2 one of NVlabs/edm2; IMAGES a zip archive of photographs. Costs
are CPU seconds of one thread (of a process and its children), the best of interleaved repeats;
files are in the page cache. ``scaling`` takes wall time, workers' start included, of a machine
that does nothing else. ``formats`` uses litdata, mosaicml-streaming and webdataset where they
are installed. Each part prints one JSON object, and writes it to ``--out``.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest.mock import patch

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.timing import revision  # noqa: E402


def cpu_seconds() -> float:
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF,
                                                         resource.RUSAGE_CHILDREN))  # fmt: skip
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def best(jobs: dict[str, Callable[[], int]], repeats: int) -> dict[str, dict[str, float]]:
    """Images per CPU second of each job, which returns how many it did; best and worst repeat."""
    rates: dict[str, list[float]] = {key: [] for key in jobs}
    for _ in range(repeats):
        for key, job in jobs.items():
            start = cpu_seconds()
            images = job()
            rates[key].append(images / (cpu_seconds() - start))
    return {k: {"best": round(max(v), 1), "worst": round(min(v), 1)} for k, v in rates.items()}


def versions(*names: str) -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("numpy", "pillow", *names):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def loader(args: argparse.Namespace) -> dict[str, Any]:
    """Shuffled batches of 128 at 64x64: the store against EDM's dataset and PyTorch's loader."""
    import torch

    from pagoda.data.shards import ShardedArray

    sys.path.insert(0, args.edm)
    from training.dataset import ImageFolderDataset

    torch.set_num_threads(1)
    n, batch, steps = args.n, 128, args.n // 128
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        images = np.lib.format.open_memmap(f"{folder}/images.npy", "w+", np.uint8, (n, 3, 64, 64))
        with zipfile.ZipFile(f"{folder}/edm.zip", "w") as archive:
            for i in range(n):
                images[i] = rng.integers(0, 256, (3, 64, 64), dtype=np.uint8)
                out = io.BytesIO()  # as dataset_tool.py writes it
                Image.fromarray(images[i].transpose(1, 2, 0)).save(out, "png", compress_level=0)
                archive.writestr(f"{i // 1000:05d}/img{i:08d}.png", out.getvalue())
            labels = [[f"{i // 1000:05d}/img{i:08d}.png", i % 10] for i in range(n)]
            archive.writestr("dataset.json", json.dumps({"labels": labels}))
        images.flush()
        mapped = np.load(f"{folder}/images.npy", mmap_mode="r")
        half = ShardedArray([mapped[: n // 2], mapped[n // 2 :]])
        classes = np.arange(n) % 10

        def store(source: Any) -> int:
            for _ in range(steps):
                rows = torch.randint(n, (batch,)).numpy()
                _ = torch.from_numpy(source[rows]), torch.from_numpy(classes[rows])
            return steps * batch

        def edm(workers: int) -> int:
            data = ImageFolderDataset(f"{folder}/edm.zip", use_labels=True)
            _ = data.label_dim
            data.close()  # workers would share the position in the open archive
            load = torch.utils.data.DataLoader(
                data, batch, shuffle=True, num_workers=workers, drop_last=True
            )
            return sum(len(x) for x, _ in load)

        assert np.array_equal(ImageFolderDataset(f"{folder}/edm.zip")[5][0], mapped[5])
        jobs = {
            "store": lambda: store(mapped), "store, two shards": lambda: store(half),
            "edm, no workers": lambda: edm(0), "edm, two workers": lambda: edm(2),
        }  # fmt: skip
        rates = best(jobs, args.repeats)
    ratio = {k: round(rates["store"]["best"] / rates[k]["best"], 1) for k in rates}
    return {
        "images_per_cpu_second": rates, "store_over": ratio, "n": n, "repeats": args.repeats,
        "edm": revision(args.edm), "versions": versions("torch"),
        "pyspng": importlib.util.find_spec("pyspng") is not None,
    }  # fmt: skip


def rgb_only(archive: str, folder: str, copies: int) -> tuple[str, int]:
    """The RGB images of an archive, several times over: EDM's tool takes no others."""
    out = Path(folder) / "rgb.zip"
    count = 0
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if Image.open(io.BytesIO(content)).mode == "RGB":
                for k in range(copies):
                    target.writestr(f"{k}/{name}", content)
                count += copies
    return str(out), count


def through_tool(tool: list[str], source: str, dest: str) -> None:
    command = [sys.executable, *tool, f"--source={source}", f"--dest={dest}"]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(tool[0]).parent)


def ours(source: str, folder: Path, resolution: int, recipe: str) -> int:
    """Every image of an archive through our pass, in one process."""
    from pagoda.data.cutting import Cutting, Target
    from pagoda.data.registry import Wanted, open_source

    shutil.rmtree(folder, ignore_errors=True)
    images = open_source("zip", Wanted("train", source, num_classes=1, test_share=0.0001))
    target = Target(folder, "train", len(images), resolution, False)
    Cutting(images, [target], recipe, None).run(lambda _: None)
    return len(images)


def as_tool_wrote(archive: str) -> dict[bytes, int]:
    with zipfile.ZipFile(archive) as source:
        names = [n for n in source.namelist() if n.endswith(".png")]
        found = [np.asarray(Image.open(io.BytesIO(source.read(n)))) for n in names]
    return {image.tobytes(): 1 for image in found}


def downsample(args: argparse.Namespace) -> dict[str, Any]:
    """Photographs to 64x64 in one process: pagoda's pass against the reference tools."""
    from pagoda.data import cutting

    cutting._DECODED_ALONE = 1 << 60  # one process
    result: dict[str, Any] = {"repeats": args.repeats, "resolution": 64,
                              "versions": versions()}  # fmt: skip
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        source, n = rgb_only(args.images, folder, args.copies)
        size = ["--resolution=64x64"]
        tools = {"edm": ("lanczos", [f"{args.edm}/dataset_tool.py", "--transform=center-crop"])}
        if args.edm2:
            tools["edm2"] = ("adm", [f"{args.edm2}/dataset_tool.py", "convert",
                                     "--transform=center-crop-dhariwal"])  # fmt: skip
        for name, (recipe, tool) in tools.items():
            dest, place = f"{folder}/{name}.zip", Path(folder, recipe)

            def theirs(most: int, tool: list[str] = tool, dest: str = dest) -> float:
                Path(dest).unlink(missing_ok=True)
                start = cpu_seconds()
                through_tool([*tool, *size, f"--max-images={most}"], source, dest)
                return cpu_seconds() - start

            # The tool's start, which differs much between the two, is taken off.
            costs: dict[str, list[float]] = {name: [], "start": [], "pagoda": []}
            for _ in range(args.repeats):
                costs["start"].append(theirs(1))
                costs[name].append(theirs(n))
                start = cpu_seconds()
                ours(source, place, 64, recipe)
                costs["pagoda"].append(cpu_seconds() - start)
            per_image = [c - s for c, s in zip(costs[name], costs["start"], strict=True)]
            rates = {name: round((n - 1) / min(per_image), 1),
                     f"pagoda {recipe}": round(n / min(costs["pagoda"]), 1)}  # fmt: skip
            there = as_tool_wrote(dest)
            made = np.load(place / "train_images.npy")
            equal = sum(image.transpose(1, 2, 0).tobytes() in there for image in made)
            result[name] = {
                "images_per_cpu_second": rates, "n": n,
                "ratio": round(rates[f"pagoda {recipe}"] / rates[name], 2),
                "tool_start_cpu_seconds": round(min(costs["start"]), 2),
                "bytes_equal": f"{equal} of {len(made)}",
                "revision": revision(args.edm if name == "edm" else args.edm2),
            }  # fmt: skip
    return result


def scaling(args: argparse.Namespace) -> dict[str, Any]:
    """Wall time of one pass over 1, 2, 4, ... cores, and of one pass for four resolutions.

    The second over the archive once, on one core.
    """
    from pagoda.data import cutting
    from pagoda.data.registry import Wanted, open_source

    cutting._DECODED_ALONE = 1  # several processes however few images
    most = len(os.sched_getaffinity(0))
    counts = sorted({*(2**k for k in range(most.bit_length())), most})
    sides = (64, 128, 256, 512)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:

        def opened(copies: int) -> Any:
            Path(folder, str(copies)).mkdir(exist_ok=True)
            source, _ = rgb_only(args.images, f"{folder}/{copies}", copies)
            return open_source("zip", Wanted("train", source, num_classes=1, test_share=0.0001))

        once, many = opened(1), opened(args.copies)

        def go(images: Any, cores: int, *resolutions: int) -> float:
            start, where = time.perf_counter(), Path(folder, "pass")
            targets = [cutting.Target(where / str(r), "train", len(images), r, False)
                       for r in resolutions]  # fmt: skip
            with patch.object(cutting, "cores", lambda: cores):
                cutting.Cutting(images, targets, "adm", None).run(lambda _: None)
            wall = time.perf_counter() - start
            shutil.rmtree(where)
            return round(wall, 3)

        walls: dict[int, list[float]] = {count: [] for count in counts}
        apart, together = [], []
        for _ in range(args.repeats):
            for count in counts:
                walls[count].append(go(many, count, sides[0]))
            apart.append(sum(go(once, 1, side) for side in sides))
            together.append(go(once, 1, *sides))
    return {
        "recipe": "adm", "resolution": sides[0], "n": len(many),
        "over_cores": [{"cores": count, "seconds": walls[count]} for count in counts],
        "one_pass": {"n": len(once), "resolutions": sides, "apart": apart, "together": together},
        "processor": platform.machine(), "versions": versions(),
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def formats(args: argparse.Namespace) -> dict[str, Any]:
    """Lossless storage of 512x512 photographs: size, and images a CPU second read at random."""
    from pagoda.data.resize import cut
    from pagoda.data.store import EncodedImages, encode

    with zipfile.ZipFile(args.images) as archive:
        names = archive.namelist()
        opened = (Image.open(io.BytesIO(archive.read(n))) for n in names)
        images = [cut(image, 512, "adm") for image in opened if min(image.size) >= 330]
    n = len(images)
    rows = np.random.default_rng(0).permutation(n)
    pngs, webps = [], [encode(image) for image in images]
    for image in images:
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG", compress_level=1)
        pngs.append(out.getvalue())
    sizes: dict[str, float] = {}
    jobs: dict[str, Callable[[], int]] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        raw = np.stack([image.transpose(2, 0, 1) for image in images])
        np.save(f"{folder}/raw.npy", raw)
        mapped = np.load(f"{folder}/raw.npy", mmap_mode="r")
        Path(folder, "a.webp").write_bytes(b"".join(webps))
        offsets = np.concatenate([[0], np.cumsum([len(w) for w in webps])])
        store = EncodedImages([Path(folder, "a.webp")], offsets, 512)
        batches = [rows[i : i + 16] for i in range(0, n, 16)]

        def whole(source: Any) -> int:
            return sum(len(source[batch]) for batch in batches)

        assert np.array_equal(store[rows[:9]], raw[rows[:9]])
        sizes |= {"raw": raw.nbytes / n, "pagoda, lossless WebP": sum(map(len, webps)) / n}
        jobs |= {"raw": lambda: whole(mapped), "pagoda, lossless WebP": lambda: whole(store)}
        for key, size, job in _libraries(Path(folder), pngs, rows):
            sizes[key], jobs[key] = size, job
        rates = best(jobs, args.repeats)
    return {
        "n": n, "kilobytes_per_image": {k: round(v / 1e3) for k, v in sizes.items()},
        "images_per_cpu_second": rates,
        "imagenet_gigabytes": {k: round(v * 1_281_167 / 1e9) for k, v in sizes.items()},
        "versions": versions("litdata", "mosaicml-streaming", "webdataset"),
    }  # fmt: skip


def _libraries(
    folder: Path, pngs: list[bytes], rows: np.ndarray
) -> Iterator[tuple[str, float, Callable[[], int]]]:
    """The same images as PNG files in what streaming libraries write."""

    def decoded(content: bytes) -> int:
        return len(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).shape) // 3

    with contextlib.suppress(ImportError):
        from streaming import MDSWriter, StreamingDataset

        out = folder / "mds"
        with MDSWriter(out=str(out), columns={"x": "bytes"}) as writer:
            for png in pngs:
                writer.write({"x": png})
        mds = StreamingDataset(local=str(out), batch_size=1)
        size = sum(f.stat().st_size for f in out.iterdir()) / len(pngs)
        yield "mosaicml-streaming, PNG", size, lambda: sum(decoded(mds[int(i)]["x"]) for i in rows)
    with contextlib.suppress(ImportError):
        import litdata

        lit = folder / "lit"
        writer = litdata.streaming.writer.BinaryWriter(str(lit), chunk_bytes="64MB")
        for i, png in enumerate(pngs):
            writer[i] = {"x": png}
        writer.done()
        writer.merge()
        data = litdata.StreamingDataset(str(lit))
        size = sum(f.stat().st_size for f in lit.iterdir()) / len(pngs)
        yield "litdata, PNG", size, lambda: sum(decoded(data[int(i)]["x"]) for i in rows)
    with contextlib.suppress(ImportError):
        import webdataset

        tar = folder / "web.tar"
        with webdataset.TarWriter(str(tar)) as sink:
            for i, png in enumerate(pngs):
                sink.write({"__key__": f"{i:06d}", "png": png})
        yield (
            "webdataset, PNG (in order only)",
            tar.stat().st_size / len(pngs),
            lambda: sum(
                decoded(sample["png"])
                for sample in webdataset.WebDataset(str(tar), shardshuffle=False)
            ),
        )


def million(args: argparse.Namespace) -> dict[str, Any]:
    """Build and train on the store of a million 64x64 images: see benchmarks/million.py."""
    from benchmarks import million

    return million.run(Path(args.folder), args.n, args.limit)


PARTS = {"loader": loader, "downsample": downsample, "scaling": scaling, "formats": formats,
         "million": million}  # fmt: skip
_NEEDS = {"loader": ["edm"], "downsample": ["edm", "images"], "scaling": ["images"],
          "formats": ["images"]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--edm", help="checkout of NVlabs/edm")
    parser.add_argument("--edm2", help="checkout of NVlabs/edm2")
    parser.add_argument("--images", help="zip archive of photographs")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="for what is written")
    parser.add_argument("--n", type=int, help="images of the loader (20000) and of million (10^6)")
    parser.add_argument("--limit", type=float, default=4.0, help="GiB of memory for million")
    parser.add_argument("--copies", type=int, default=5, help="times the archive is used over")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where the results go as well")
    args = parser.parse_args()
    for name in _NEEDS.get(args.part, ()):
        if getattr(args, name) is None:
            parser.error(f"{args.part} needs --{name}")
    args.n = args.n or (1_000_000 if args.part == "million" else 20_000)
    text = json.dumps(PARTS[args.part](args), indent=1)
    print(text)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
