"""First stage: every image cut to one resolution, each from its original."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagoda import artifacts
from pagoda.config import Config
from pagoda.data.base import ImageSource
from pagoda.data.embedded import SEED
from pagoda.data.resize import cut, cut_batch, enlarges
from pagoda.data.sources import SPLITS, EmbeddedSource, open_source
from pagoda.errors import PagodaError
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track

# Starting processes takes about half a second: below these sizes one process is faster.
_DECODED_ALONE = 2000  # images
_DRAWN_ALONE = 1 << 26  # pixels of the embedded set
_BLOCK = 1 << 22  # pixels handled at once


def run(config: Config, resolution: int) -> None:
    """Cut both splits to ``resolution`` and write the ``images`` artifact.

    Raises:
        PagodaError: if the source is missing or damaged, an image does not decode (named, with its
            position), or every image is smaller than the resolution; nothing is written then.
    """
    data = config.data
    sources = {
        split: open_source(
            data.source, split=split, path=data.path, hub=data.hub, num_classes=data.num_classes,
            limit=getattr(data, f"{split}_images"), render_res=data.render_res, seed=SEED,
        )
        for split in SPLITS
    }  # fmt: skip
    enlarged = {}
    identity = {"name": config.name, "resolution": resolution}
    with artifacts.create(Paths(config).data(resolution), "images", config=identity) as out:
        with track(sum(map(len, sources.values())), f"downsample {resolution}") as bar:
            for split, source in sources.items():
                job = _Job(
                    source, out / f"{split}_images.npy", resolution, data.recipe, data.pad_to
                )
                enlarged[split] = job.run(bar.advance)
                np.save(out / f"{split}_labels.npy", source.labels)
        card = {
            "classes": list(sources["train"].classes),
            "recipe": data.recipe,
            "pad_to": data.pad_to,
            "resolution": resolution,
            "source": data.source,
            "source_fingerprint": {split: s.fingerprint() for split, s in sources.items()},
            "n": {split: len(source) for split, source in sources.items()},
            "enlarged": enlarged,
        }
        artifacts.write_json(out / "card.json", card)


class _Done(NamedTuple):
    images: int
    enlarged: int  # of these, how many were smaller than the resolution


@dataclass(frozen=True)
class _Job:
    """One split on its way into one ``.npy`` file."""

    source: ImageSource
    file: Path
    resolution: int
    recipe: str
    pad_to: int | None

    def reserve(self) -> None:
        """Make the file at its full size, so that a full disk is an error and not a crash."""
        shape = (len(self.source), 3, self.resolution, self.resolution)
        artifacts.create_array(self.file, np.uint8, shape)

    def run(self, advance: Callable[[int], None]) -> int:
        """Make the file and fill it; return how many images had to be enlarged.

        Raises:
            PagodaError: if all had to: such a set holds no image of that resolution.
        """
        self.reserve()
        enlarged = 0
        for done in self.blocks():
            advance(done.images)
            enlarged += done.enlarged
        if enlarged == len(self.source):
            raise PagodaError(
                f"every {self.source.split} image of {self.source.where} is smaller than "
                f"{self.resolution}x{self.resolution}; lower target_res, or set data.pad_to to pad"
            )
        return enlarged

    def blocks(self) -> Iterator[_Done]:
        """Fill the file block by block, in order."""
        count, block = len(self.source), self._block()
        ranges = [(i, min(i + block, count)) for i in range(0, count, block)]
        workers = min(_cores(), len(ranges))
        if workers < 2 or not self._worth_processes():
            for start, stop in ranges:
                yield self.fill(start, stop)
            return
        # Spawned, not forked: the parent runs threads (the progress bar, perhaps libraries').
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, _start_worker, (self,))
        try:
            with _interrupts_held():
                results = [pool.submit(_fill, start, stop) for start, stop in ranges]
            for result in results:
                yield result.result()
        except BrokenProcessPool as error:
            raise PagodaError(
                f"a process that cut images to {self.resolution} was killed; free some memory"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)

    def fill(self, start: int, stop: int) -> _Done:
        """Cut images ``start:stop`` into the file."""
        target = np.lib.format.open_memmap(self.file, "r+")
        images: NDArray[np.uint8] | None = self.source.array(start, stop)
        if images is not None:
            target[start:stop] = cut_batch(images, self.resolution, self.recipe, self.pad_to)
            height, width = images.shape[2:]
            small = enlarges(width, height, self.resolution, self.pad_to)
            return _Done(stop - start, small * (stop - start))
        enlarged = 0
        for i in range(start, stop):
            image = self.source.load(i)
            enlarged += enlarges(*image.size, self.resolution, self.pad_to)
            pixels = cut(image, self.resolution, self.recipe, self.pad_to)
            target[i] = pixels.transpose(2, 0, 1)
        return _Done(stop - start, enlarged)

    def _block(self) -> int:
        """Images a block: few where they are decoded one by one, many where arrays are cut."""
        first = self.source.array(0, 1)
        return 32 if first is None else max(1, _BLOCK // (first.shape[2] * first.shape[3]))

    def _worth_processes(self) -> bool:
        first = self.source.array(0, 1)
        if first is None:
            return len(self.source) > _DECODED_ALONE
        drawn = len(self.source) * first.shape[2] * first.shape[3]
        return isinstance(self.source, EmbeddedSource) and drawn > _DRAWN_ALONE


_worker_job: _Job


def _start_worker(job: _Job) -> None:
    global _worker_job
    _worker_job = job


def _fill(start: int, stop: int) -> _Done:
    return _worker_job.fill(start, stop)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back: processes started meanwhile never see it, this one does afterwards.

    The mask is what new processes inherit. It does not cover the threads that run already (the
    progress bar's), any of which may be handed the signal: hence the handler too.
    """
    held: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGINT, handler)
    if held:
        raise KeyboardInterrupt


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
