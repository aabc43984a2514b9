"""Cutting a source to several resolutions in one pass, over all cores, to be stopped at any time.

Every image is opened once and cut to each resolution from the original. Work is done in blocks of
consecutive images. When a block is on disk, a line with its CRC-32 is added to the split's log; a
pass that is started again over the same folders compares the checksums and does what is missing.
Bytes do not depend on the number of processes, nor on when a pass was stopped.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import signal
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pagoda.data.base import ImageSource
from pagoda.data.resize import cut, cut_batch, enlarges
from pagoda.data.shards import create_shards, shard_names
from pagoda.data.store import ENCODED_SHARD, SHARD_BYTES, Pixels, cores, encode
from pagoda.errors import PagodaError

# Starting processes takes about half a second: below these sizes one process is faster.
_DECODED_ALONE = 2000  # images
_DRAWN_ALONE = 1 << 26  # pixels of the embedded set
_BLOCK = 1 << 22  # pixels handled at once
_AHEAD = 3  # blocks in flight for each process: their results wait in memory


class Block(NamedTuple):
    """Images ``start:stop`` of a split at one resolution."""

    start: int
    stop: int
    enlarged: int  # of these, how many were smaller than the resolution
    crc: int  # of their pixels, or of their files one after the other
    sizes: list[int]  # bytes of each file; empty where pixels are stored raw


@dataclass(frozen=True)
class Target:
    """One split at one resolution: the files it goes to.

    Attributes:
        folder: where the files are, and the log that says how far they got.
        split: name of the split.
        images: how many.
        resolution: R.
        encoded: lossless WebP files, and not raw pixels.
    """

    folder: Path
    split: str
    images: int
    resolution: int
    encoded: bool

    @property
    def log(self) -> Path:
        """One line of JSON for each block that is on disk."""
        return self.folder / f"{self.split}.log"

    @property
    def each(self) -> int:
        """Images a shard."""
        if self.encoded:
            return ENCODED_SHARD
        return max(1, SHARD_BYTES // (3 * self.resolution**2))

    def shards(self) -> list[Path]:
        """Files of the pixels, in order."""
        names = shard_names(f"{self.split}_images", self.images, self.each)
        ending = ".webp" if self.encoded else ".npy"
        return [(self.folder / name).with_suffix(ending) for name in names]

    def prepare(self) -> list[Block]:
        """Make the files that are missing, at full size; return the blocks that are whole.

        Raises:
            OSError: if the disk is too full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.encoded:
            shape = (self.images, 3, self.resolution, self.resolution)
            create_shards(self.folder, f"{self.split}_images", np.uint8, shape, self.each)
        whole = self._whole()
        partial = self.log.with_suffix(".partial")
        partial.write_text("".join(_line(block) for block in whole), "utf-8")
        partial.rename(self.log)
        if self.encoded:
            self._truncate(whole)
        return whole

    def write(self, start: int, images: Pixels) -> None:
        """Put raw images (n, 3, R, R) into their rows."""
        for file, rows, inside in self._pieces(start, start + len(images)):
            np.lib.format.open_memmap(file, "r+")[inside] = images[rows]

    def read(self, start: int, stop: int) -> bytes:
        """What :meth:`write` or :meth:`append` put there."""
        pieces = self._pieces(start, stop)
        return b"".join(np.load(f, mmap_mode="r")[inside].tobytes() for f, _, inside in pieces)

    def append(self, block: Block, files: list[bytes]) -> None:
        """Put WebP files behind those of the block before."""
        for file, rows, _ in self._pieces(block.start, block.stop):
            with file.open("ab") as stream:
                stream.write(b"".join(files[rows]))

    def note(self, block: Block) -> None:
        """Say in the log that a block is on disk."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(_line(block))

    def blocks(self) -> list[Block]:
        """The blocks of the log, in order, up to the first line that is not whole."""
        found = []
        if self.log.is_file():
            for line in self.log.read_text("utf-8").splitlines():
                try:
                    found.append(Block(*json.loads(line)))
                except (ValueError, TypeError):
                    break
        return sorted(found)

    def finish(self) -> int:
        """Write the offsets of encoded images; return how many images were enlarged."""
        blocks = self.blocks()
        if self.encoded:
            sizes = [size for block in blocks for size in block.sizes]
            offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            np.save(self.folder / f"{self.split}_offsets.npy", offsets)
        return sum(block.enlarged for block in blocks)

    def _pieces(self, start: int, stop: int) -> list[tuple[Path, slice, slice]]:
        """Shard, rows of the block, rows of the shard."""
        files, pieces = self.shards(), []
        for k in range(start // self.each, (stop - 1) // self.each + 1):
            first, last = max(start, k * self.each), min(stop, (k + 1) * self.each)
            inside = slice(first - k * self.each, last - k * self.each)
            pieces.append((files[k], slice(first - start, last - start), inside))
        return pieces

    def _whole(self) -> list[Block]:
        if not self.encoded:
            found = [b for b in self.blocks() if b.stop <= self.images]
            return [b for b in found if zlib.crc32(self.read(b.start, b.stop)) == b.crc]
        whole: list[Block] = []
        streams = {file: file.open("rb") for file in self.shards() if file.is_file()}
        try:
            for block in self.blocks():
                parts = []
                for file, rows, _ in self._pieces(block.start, block.stop):
                    size = sum(block.sizes[rows])
                    parts.append(streams[file].read(size) if file in streams else b"")
                if zlib.crc32(b"".join(parts)) != block.crc or block.start != _end(whole):
                    break
                whole.append(block)
        finally:
            for stream in streams.values():
                stream.close()
        return whole

    def _truncate(self, whole: list[Block]) -> None:
        """Cut off what a killed process left behind the last whole block."""
        sizes = [size for block in whole for size in block.sizes]
        for k, file in enumerate(self.shards()):
            with file.open("ab") as stream:
                stream.truncate(sum(sizes[k * self.each : (k + 1) * self.each]))


@dataclass(frozen=True)
class Cutting:
    """One split of a source on its way to its targets.

    Attributes:
        source: the images.
        targets: where they go, a target a resolution.
        recipe: a key of :data:`pagoda.data.resize.RECIPES`.
        pad_to: see :func:`pagoda.data.resize.cut`.
    """

    source: ImageSource
    targets: list[Target]
    recipe: str
    pad_to: int | None

    def run(self, advance: Callable[[int], None]) -> None:
        """Do what is missing; ``advance`` is told how many images are done.

        Raises:
            PagodaError: if an image does not decode (named, with its position), or a process was
                killed.
            OSError: if the disk is full.
        """
        done = [{(b.start, b.stop) for b in target.prepare()} for target in self.targets]
        count, step = len(self.source), self._block()
        todo = []
        for start in range(0, count, step):
            span = (start, min(start + step, count))
            lacking = [k for k, spans in enumerate(done) if span not in spans]
            if lacking:
                todo.append((*span, lacking))
        advance(count - sum(stop - start for start, stop, _ in todo))
        for _, _, lacking, results in self._results(todo):
            for k, (block, files) in zip(lacking, results, strict=True):
                if files:
                    self.targets[k].append(block, files)
                self.targets[k].note(block)
            advance(results[0][0].stop - results[0][0].start)

    def fill(self, start: int, stop: int, lacking: list[int]) -> list[tuple[Block, list[bytes]]]:
        """Cut images ``start:stop`` to the targets ``lacking``.

        Raw pixels are written; of encoded targets the files are returned, to be appended in order.
        """
        targets = [self.targets[k] for k in lacking]
        cuts, small = self._cut(start, stop, targets)
        done = []
        for target, images, enlarged in zip(targets, cuts, small, strict=True):
            files: list[bytes] = []
            if target.encoded:
                files = [encode(image.transpose(1, 2, 0)) for image in images]
                crc = zlib.crc32(b"".join(files))
            else:
                target.write(start, images)
                crc = zlib.crc32(np.ascontiguousarray(images).data)
            done.append((Block(start, stop, enlarged, crc, [len(f) for f in files]), files))
        return done

    def _cut(self, start: int, stop: int, targets: list[Target]) -> tuple[list[Pixels], list[int]]:
        arrays: NDArray[np.uint8] | None = self.source.array(start, stop)
        if arrays is not None:
            height, width = arrays.shape[2:]
            return (
                [cut_batch(arrays, t.resolution, self.recipe, self.pad_to) for t in targets],
                [(stop - start) * enlarges(width, height, t.resolution, self.pad_to)
                 for t in targets],
            )  # fmt: skip
        cuts = [np.empty((stop - start, 3, t.resolution, t.resolution), np.uint8) for t in targets]
        small = [0] * len(targets)
        for i in range(start, stop):
            image = self.source.load(i)
            for k, target in enumerate(targets):
                small[k] += enlarges(*image.size, target.resolution, self.pad_to)
                try:
                    pixels = cut(image, target.resolution, self.recipe, self.pad_to)
                except PagodaError as error:
                    raise PagodaError(f"{self.source.describe(i)} {error}; remove it") from error
                cuts[k][i - start] = pixels.transpose(2, 0, 1)
        return cuts, small

    def _results(
        self, todo: list[tuple[int, int, list[int]]]
    ) -> Iterator[tuple[int, int, list[int], list[tuple[Block, list[bytes]]]]]:
        workers = min(cores(), len(todo))
        if workers < 2 or not self._worth_processes():
            for start, stop, lacking in todo:
                yield start, stop, lacking, self.fill(start, stop, lacking)
            return
        # Spawned, not forked: the parent runs threads (the progress bar, perhaps libraries').
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, _start_worker, (self,))
        waiting: deque[tuple[tuple[int, int, list[int]], Future[_Filled]]] = deque()
        rest = iter(todo)
        try:
            while True:
                for item in itertools.islice(rest, _AHEAD * workers - len(waiting)):
                    with _interrupts_held():
                        waiting.append((item, pool.submit(_fill, *item)))
                if not waiting:
                    return
                item, result = waiting.popleft()
                yield *item, result.result()
        except BrokenProcessPool as error:
            raise PagodaError("a process that cut images was killed; free some memory") from error
        finally:
            pool.shutdown(cancel_futures=True)

    def _block(self) -> int:
        """Images a block: few where they are decoded one by one, many where arrays are cut."""
        first = self.source.array(0, 1)
        return 32 if first is None else max(1, _BLOCK // (first.shape[2] * first.shape[3]))

    def _worth_processes(self) -> bool:
        first = self.source.array(0, 1)
        if first is None:
            return len(self.source) > _DECODED_ALONE
        drawn = len(self.source) * first.shape[2] * first.shape[3]
        return self.source.pictures.drawn and drawn > _DRAWN_ALONE


_Filled = list[tuple[Block, list[bytes]]]

_worker: Cutting


def _start_worker(cutting: Cutting) -> None:
    global _worker
    _worker = cutting


def _fill(start: int, stop: int, lacking: list[int]) -> _Filled:
    return _worker.fill(start, stop, lacking)


def _line(block: Block) -> str:
    return json.dumps(block) + "\n"


def _end(blocks: list[Block]) -> int:
    return blocks[-1].stop if blocks else 0


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
