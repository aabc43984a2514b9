"""What ``pagoda sample`` does: images of seeds in classes, as a folder, a grid or an ``.npz``.

The processes of a group share the samples; files hold the same bits whatever their number. Each
form says what it holds (generator, classes, seeds) and takes the place of such a file only.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pagoda import distributed, outputs
from pagoda.artifacts import write_json
from pagoda.errors import PagodaError
from pagoda.evaluation.files import DIFFUSERS
from pagoda.evaluation.guidance import Guidance, parse_levels, weaker
from pagoda.evaluation.samplers import Sampler
from pagoda.models import Generator, Teacher, load
from pagoda.pipeline.stages.device import pick_device
from pagoda.pipeline.stages.progress import log_line, track
from pagoda.pipeline.stages.text_lines import read_lines

LIST = "samples.json"  # in a folder of samples: what pagoda wrote there
ABOUT = "pagoda"  # under which a .png and an .npz say what they hold
_ARRAYS = ("arr_0", "labels", "seeds", ABOUT)  # of an .npz
_BLOCK = 256  # images that a process makes at a time, about
_MOST = 10_000_000  # images
_NO_FOLDER = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".zip", ".tar", ".npy", ".pt", ".json"}


@dataclass(frozen=True)
class Request:
    """The options of ``pagoda sample``; ``classes``, ``seeds``, ``prompts`` as they were typed."""

    source: str
    out: Path
    classes: str | None = None
    seeds: str = "0-7"
    steps: int | None = None
    guidance: float | None = None
    truncation: float | None = None
    batch: int | None = None
    interval: str | None = None
    guide: str | None = None
    prompts: str | None = None


@dataclass(frozen=True)
class Made:
    """Samples to be written: every seed in every class or of every prompt, one by one."""

    sampler: Sampler
    classes: list[int]
    names: list[str]
    seeds: list[int]
    about: dict[str, Any]

    def blocks(self) -> Iterator[np.ndarray]:
        """All images in order, uint8 (n, 3, r, r), in pieces; says how fast they came."""
        sampler, n, seconds = self.sampler, len(self.sampler), 0.0
        size = sampler.draws.batch * max(1, _BLOCK // sampler.draws.batch)
        with track(n, "sample") as bar:
            for turn in range(0, n, size * distributed.world_size()):
                start, began = turn + distributed.rank() * size, time.perf_counter()
                rows = np.arange(start, min(start + size, n))
                own = sampler.read(rows) if len(rows) else np.empty((0, 3, *sampler.resolution))
                images = distributed.all_gather_rows(own.astype(np.uint8, copy=False))
                seconds += time.perf_counter() - began
                bar.advance(len(images))
                yield images
        calls = f"{sampler.nfe} network evaluation{'s' * (sampler.nfe > 1)} each"
        many = "images" if n > 1 else "image"
        log_line(f"{n} {many} in {seconds:.2f} s, {n / seconds:.1f} images/s, {calls}")


def run(request: Request) -> None:
    """Make the samples and write them.

    Raises:
        PagodaError: one line; nothing is written then.
    """
    check_out(request.out)
    seeds = numbers(request.seeds, "--seeds")
    classes = None if request.classes is None else class_list(request.classes)
    with distributed.group():
        if request.source.startswith(DIFFUSERS):
            made = _of_prompts(request, seeds)
        else:
            model = load(request.source, pick_device())
            if request.prompts is not None:
                classes = _told(request, model)
            made = _made(request, model, classes, seeds)
        write = {".png": _write_grid, ".npz": _write_npz}.get(request.out.suffix, _write_folder)
        if distributed.is_main_process():
            write(request.out, made)
        else:
            for _ in made.blocks():
                pass


def check_out(out: Path) -> None:
    """Refuse before any work a place where samples may not go.

    Raises:
        PagodaError: if anything but such samples is there, or no form has such a name.
    """
    if out.suffix not in (".png", ".npz"):
        if out.suffix.lower() in _NO_FOLDER | {".png", ".npz"}:
            raise PagodaError(f"--out {out}; it is a folder, a grid (.png) or an array (.npz)")
        outputs.check_folder(out, _stranger)
        return
    outputs.check_file(out)
    if out.exists() and not is_ours(out):
        raise PagodaError(f"{out} is not of 'pagoda sample', so it stays; choose another place")


def numbers(text: str, option: str) -> list[int]:
    """``0-63,70`` -> 0, 1, ..., 63, 70.

    Raises:
        PagodaError: for anything but whole numbers and rising ranges, or one twice.
    """
    ranges, wrong = [], f"{option} {text!r}; it must be whole numbers and ranges, as in 0-63,70"
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise PagodaError(wrong)
        ranges.append(range(int(first), int(last or first) + 1))
        if not ranges[-1]:
            raise PagodaError(wrong)
    if sum(r.stop - r.start for r in ranges) > _MOST:
        raise PagodaError(f"{option} {text} are more than {_MOST:,}; give fewer")
    found = [i for r in ranges for i in r]
    if len(set(found)) < len(found):
        raise PagodaError(f"{option} {text} names one twice")
    return found


def class_list(text: str) -> list[int | str]:
    """Numbers, ranges and names, as in ``0,3-5,ring``.

    Raises:
        PagodaError: for a range that is none, or a number twice.
    """
    found: list[int | str] = []
    for part in text.split(","):
        spelled = part.strip()
        a_number = spelled.replace("-", "").isdecimal()
        found += numbers(spelled, "--classes") if a_number else [spelled]
    return found


def _made(
    request: Request, model: Generator | Teacher, classes: list[int | str] | None, seeds: list[int]
) -> Made:
    model.batch = request.batch or model.batch
    guidance = 1.0 if request.guidance is None else request.guidance
    chosen = model.numbers(classes)
    if len(set(chosen)) < len(chosen):
        raise PagodaError(f"--classes {request.classes} names one twice")
    _check_count(len(chosen) * len(seeds), "classes")
    draws = model.draws(chosen, seeds, request.truncation)
    if isinstance(model, Teacher):
        guide = None if request.guide is None else weaker(model.artifact, request.guide)
        how = Guidance(guidance, parse_levels(request.interval), guide)
        sampler = model.sampler(draws, steps=request.steps, guidance=how)
    elif not any(v is not None for v in (request.steps, request.interval, request.guide)):
        sampler = model.sampler(draws, guidance=guidance)
    else:
        raise PagodaError(
            f"{request.source} is a generator, which makes images in one step; --steps, --interval "
            "and --guide are of a teacher"
        )
    _check_grid(request.out, len(chosen), len(seeds), sampler.side)
    names = [model.classes[y] for y in chosen]
    about = {
        "source": request.source, "fingerprint": sampler.fingerprint, "nfe": sampler.nfe,
        "classes": dict(zip(map(str, chosen), names, strict=True)), "seeds": request.seeds,
        "truncation": request.truncation, "guidance": guidance,
    }  # fmt: skip
    extra = {"interval": request.interval, "guide": request.guide}
    about |= {key: value for key, value in extra.items() if value is not None}
    return Made(sampler, chosen, names, seeds, about)


def _told(request: Request, model: Generator | Teacher) -> list[int | str]:
    """Tell a model of captions the prompts; the numbers of them."""
    if request.classes is not None:
        raise PagodaError("--classes and --prompts say both what to make; give one of them")
    from pagoda.text_to_image.encoders import reader_of

    prompts = _prompts(request.prompts)
    for line in model.tell(prompts, reader_of(model.card)):
        log_line(line)
    return list(range(len(prompts)))


def _of_prompts(request: Request, seeds: list[int]) -> Made:
    """Of a text-to-image pipeline of diffusers; says where a prompt had to be cut."""
    from pagoda.text_to_image.model import load_diffusers

    foreign = (request.classes, request.truncation, request.interval, request.guide)
    if any(value is not None for value in foreign):
        raise PagodaError(
            "--classes, --truncation, --interval and --guide are of a run's generators and teachers"
        )
    prompts = _prompts(request.prompts)
    _check_count(len(prompts) * len(seeds), "prompts")
    model = load_diffusers(request.source.removeprefix(DIFFUSERS), pick_device())
    model.batch = request.batch or model.batch
    told = model.read(prompts)
    for line in told.cut:
        log_line(line)
    how = {"steps": request.steps, "guidance": request.guidance}
    sampler = model.sampler(model.draws(len(prompts), seeds), told, **how)
    _check_grid(request.out, len(prompts), len(seeds), sampler.side)
    about = {
        "source": request.source, "fingerprint": sampler.fingerprint, "nfe": sampler.nfe,
        "classes": {str(i): prompt for i, prompt in enumerate(prompts)}, "seeds": request.seeds,
        "guidance": model.weight(**how),
    }  # fmt: skip
    return Made(sampler, list(range(len(prompts))), prompts, seeds, about)


def _check_count(n: int, of: str) -> None:
    """Refuse more images than one command makes."""
    if n > _MOST:
        raise PagodaError(f"{n:,} images are more than {_MOST:,}; give fewer seeds or {of}")


def _check_grid(out: Path, lines: int, columns: int, side: int) -> None:
    """Refuse a grid that is too large before hours of work."""
    if out.suffix == ".png":
        from pagoda.results import grids

        grids.grid_columns(lines, columns, side)


def _prompts(text: str | None) -> list[str]:
    """The lines of a .txt file, or the text itself.

    Raises:
        PagodaError: there is none, or the file cannot be read.
    """
    if text is None:
        raise PagodaError("a text-to-image pipeline needs --prompts: a text, or a .txt file")
    if not text.endswith(".txt"):
        return [text]
    return [line for line in read_lines(Path(text)) if line]


def _write_grid(out: Path, made: Made) -> None:
    """Every class in lines of its own, with its name: a picture, and in it what it shows."""
    from pagoda.results import grids  # and matplotlib's letters: other forms do without

    images = np.concatenate(list(made.blocks()))
    rows = images.reshape(len(made.classes), len(made.seeds), *images.shape[1:])
    side = made.sampler.side
    title = f"{side}x{side}, seeds {made.about['seeds']}, not selected"
    write_picture(out, grids.class_grid(rows, made.names, title), made.about)


def write_picture(out: Path, picture: Image.Image, about: dict[str, Any]) -> None:
    """A .png that says what it shows, by which :func:`is_ours` knows it."""
    facts = PngInfo()
    facts.add_itxt(ABOUT, json.dumps(about))
    with outputs.new_file(out) as partial:
        picture.save(partial, "PNG", optimize=True, pnginfo=facts)


def _write_npz(out: Path, made: Made) -> None:
    """``arr_0`` (n, r, r, 3), as ADM and its evaluator have it; ``labels`` and ``seeds`` (n,)."""
    labels, seeds = np.repeat(made.classes, len(made.seeds)), np.tile(made.seeds, len(made.classes))
    about = np.array(json.dumps(made.about))
    pixels, *others = _ARRAYS
    beside = dict(zip(others, (labels, seeds, about), strict=True))
    shape = (len(made.sampler), *made.sampler.resolution, 3)
    with outputs.new_file(out) as partial, zipfile.ZipFile(partial, "w") as archive:
        with archive.open(f"{pixels}.npy", "w", force_zip64=True) as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            for images in made.blocks():
                stream.write(images.transpose(0, 2, 3, 1).tobytes())
        for name, array in beside.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def _write_folder(out: Path, made: Made) -> None:
    """A folder a class, named by its number, with a PNG a seed; and :data:`LIST`."""
    wide, long = len(str(made.sampler.classes - 1)), max(4, len(str(max(made.seeds))))
    files = [f"{y:0{wide}}/{seed:0{long}}.png" for y in made.classes for seed in made.seeds]
    with outputs.new_folder(out, _stranger) as partial, ThreadPoolExecutor() as pool:
        for folder in {file.partition("/")[0] for file in files}:
            (partial / folder).mkdir()
        done = 0
        for images in made.blocks():
            names = files[done : done + len(images)]
            list(pool.map(_save, images, [partial / name for name in names]))
            done += len(images)
        write_json(partial / LIST, made.about | {"files": files})


def _save(image: np.ndarray, file: Path) -> None:
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file)


def _stranger(folder: Path) -> str | None:
    """What in a folder is not of ``pagoda sample``."""
    try:
        listed = json.loads((folder / LIST).read_text(encoding="utf-8"))["files"]
        ours = {LIST, *map(str, listed)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"has no {LIST} of 'pagoda sample'"
    found = (f for f in folder.rglob("*") if f.is_symlink() or not f.is_dir())
    other = next((f for f in found if f.relative_to(folder).as_posix() not in ours), None)
    return f"holds {other.relative_to(folder)}, which pagoda did not write" if other else None


def is_ours(file: Path) -> bool:
    """Whether a .png or .npz says what it holds, as those of pagoda do; an .npz nothing else."""
    try:
        if file.suffix == ".npz":
            with zipfile.ZipFile(file) as archive:
                return sorted(archive.namelist()) == sorted(f"{name}.npy" for name in _ARRAYS)
        with Image.open(file, formats=["PNG"]) as image:
            return ABOUT in image.info
    except Exception:  # whatever a foreign file makes of its readers
        return False
