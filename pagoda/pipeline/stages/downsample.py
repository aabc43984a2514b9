"""First stage: every image cut to one resolution, each from its original.

One pass over the sources serves all resolutions of the experiment: what it cuts for the others
waits in the scratch folder until their stages ask for it. Scratch is named after everything that
the bytes depend on, so that a stage that was killed goes on where it stopped, and changed
parameters never pick up old work.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from pagoda import artifacts
from pagoda.config import Config
from pagoda.config.paths import Paths
from pagoda.config.root import project_root
from pagoda.data.base import ImageSource
from pagoda.data.cutting import Cutting, Target
from pagoda.data.registry import SPLITS
from pagoda.data.trees import escaped
from pagoda.errors import PagodaError
from pagoda.outputs import link_or_copy
from pagoda.pipeline.stages.code import versions
from pagoda.pipeline.stages.progress import log_line, track
from pagoda.pipeline.stages.sources import open_splits

_KEPT_APART = ("resolution", "storage", "enlarged")  # what differs between resolutions


def run(config: Config, resolution: int) -> None:
    """Cut both splits to ``resolution`` and write the ``images`` artifact.

    Raises:
        PagodaError: if the source is missing or damaged, an image does not decode (named, with its
            position), every image is smaller than the resolution, or there are too few for what
            the evaluation asks; no artifact is written then.
    """
    data, out = config.data, Paths(config).data(resolution)
    artifacts.check_out(out, "images")
    sources = open_splits(config)
    if passed_over := sources["test"].passed_over:
        log_line(f"{sources['test'].where}: {passed_over}")
    card: dict[str, Any] = {
        "classes": list(sources["train"].classes),
        "recipe": data.recipe,
        "pad_to": data.pad_to,
        "exif": data.exif,
        "source": data.source,
        "source_fingerprint": {split: s.fingerprint() for split, s in sources.items()},
        "n": {split: len(source) for split, source in sources.items()},
    }
    scratch = {r: _scratch(config, card, r) for r in {resolution, *config.resolutions}}
    with _locked(scratch, resolution) as held:
        targets = {
            r: {s: Target(scratch[r], s, len(sources[s]), r, _encoded(config, r)) for s in SPLITS}
            for r in held
            if r == resolution or not _is_made(Paths(config).data(r), card)
        }
        try:
            _cut(config, sources, targets, resolution)
            enlarged = _enlarged(sources, targets[resolution], resolution)
            storage = "webp" if _encoded(config, resolution) else "raw"
            card |= {"resolution": resolution, "storage": storage, "enlarged": enlarged}
            with artifacts.create(
                out, "images", config={"name": config.name, "resolution": resolution}
            ) as folder:
                _fill(folder, sources, scratch[resolution], card)
        except OSError as error:
            raise PagodaError(f"cannot write {out}: {error.strerror or error}") from error
        shutil.rmtree(scratch[resolution])


def _cut(
    config: Config,
    sources: dict[str, ImageSource],
    targets: dict[int, dict[str, Target]],
    resolution: int,
) -> None:
    """Cut what is missing, in one pass for all resolutions that have room on the disk."""
    for r in [r for r in targets if r != resolution]:
        try:
            for target in targets[r].values():
                target.prepare()
        except OSError:  # no room: its own stage will say so
            for target in targets.pop(r).values():
                shutil.rmtree(target.folder, ignore_errors=True)
    with track(sum(map(len, sources.values())), f"downsample {resolution}") as bar:
        for split, source in sources.items():
            wanted = [found[split] for found in targets.values()]
            Cutting(source, wanted, config.data.recipe, config.data.pad_to).run(bar.advance)


def _enlarged(
    sources: dict[str, ImageSource], targets: dict[str, Target], resolution: int
) -> dict[str, int]:
    """How many images of each split were smaller than the resolution.

    Raises:
        PagodaError: if all were: there is none of that resolution.
    """
    enlarged = {split: target.finish() for split, target in targets.items()}
    for split, source in sources.items():
        if enlarged[split] == len(source):
            raise PagodaError(
                f"every {split} image of {source.where} is smaller than {resolution}x{resolution}; "
                "lower target_res, or set data.pad_to to pad"
            )
    return enlarged


def _fill(out: Path, sources: dict[str, ImageSource], scratch: Path, card: dict[str, Any]) -> None:
    for file in scratch.iterdir():
        if file.suffix in (".npy", ".webp"):
            # The first name is removed when the artifact is whole.
            link_or_copy(file, out / file.name)
    for split, source in sources.items():
        np.save(out / f"{split}_labels.npy", source.labels)
        names = "".join(escaped(name) + "\n" for name in source.names)
        (out / f"{split}_names.txt").write_text(names, encoding="utf-8")
    artifacts.write_json(out / "card.json", card)


def _is_made(path: Path, card: dict[str, Any]) -> bool:
    """Whether an artifact of the same images by the same recipe is there already."""
    try:
        there = json.loads((path / "card.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return {k: v for k, v in there.items() if k not in _KEPT_APART} == card


def _encoded(config: Config, resolution: int) -> bool:
    first = config.data.encode_from
    return first is not None and resolution >= first


def _scratch(config: Config, card: dict[str, Any], resolution: int) -> Path:
    """Folder of one resolution's unfinished work."""
    code = versions(__name__, f"pagoda.data.sources.{config.data.source}")
    identity = [card, resolution, _encoded(config, resolution), code]
    folder = project_root() / ".scratch" / "downsample" / f"{config.name}-{resolution}"
    return folder / artifacts.digest(identity)[:24]


@contextmanager
def _locked(scratch: dict[int, Path], resolution: int) -> Iterator[list[int]]:
    """Lock the scratch of ``resolution``, and of those others that nobody works on.

    Scratch of the same name and resolution that other parameters left behind is removed.
    """
    with ExitStack() as stack:
        held = []
        for r in sorted(scratch, key=lambda r: r != resolution):
            folder = scratch[r]
            folder.parent.mkdir(parents=True, exist_ok=True)
            try:
                timeout = -1 if r == resolution else 0
                stack.enter_context(FileLock(folder.with_suffix(".lock"), timeout=timeout))
            except Timeout:
                continue
            held.append(r)
            for other in folder.parent.iterdir():
                if other.is_dir() and other != folder:
                    try:
                        with FileLock(other.with_suffix(".lock"), timeout=0):
                            shutil.rmtree(other, ignore_errors=True)
                    except Timeout:
                        continue  # another experiment is at it
        yield held
