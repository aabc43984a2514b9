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

from pagoda.data.base import ImageSource
from pagoda.data.resize import cut, cut_batch, enlarges
from pagoda.data.shards import ShardedArray, create_shards, shard_names
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
        return ENCODED_SHARD if self.encoded else max(1, SHARD_BYTES // (3 * self.resolution**2))

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
        if self.encoded:
            whole = self._whole_files()
        else:
            shape = (self.images, 3, self.resolution, self.resolution)
            create_shards(self.folder, f"{self.split}_images", np.uint8, shape, self.each)
            logged = [b for b in self.blocks() if b.stop <= self.images]
            whole = [b for b in logged if zlib.crc32(self.read(b.start, b.stop)) == b.crc]
        partial = self.log.with_suffix(".partial")
        partial.write_text("".join(json.dumps(block) + "\n" for block in whole), "utf-8")
        partial.rename(self.log)
        return whole

    def write(self, start: int, images: Pixels) -> None:
        """Put raw images (n, 3, R, R) into their rows."""
        self._rows("r+")[start : start + len(images)] = images

    def read(self, start: int, stop: int) -> bytes:
        """What :meth:`write` put there."""
        return self._rows("r")[start:stop].tobytes()

    def append(self, block: Block, files: list[bytes]) -> None:
        """Put WebP files behind those of the block before."""
        for file, rows in self._pieces(block):
            with file.open("ab") as stream:
                stream.write(b"".join(files[rows]))

    def note(self, block: Block) -> None:
        """Say in the log that a block is on disk."""
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(block) + "\n")

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

    def _rows(self, mode: str) -> ShardedArray:
        return ShardedArray([np.lib.format.open_memmap(file, mode) for file in self.shards()])

    def _pieces(self, block: Block) -> Iterator[tuple[Path, slice]]:
        """The shards of a block's files; of each, which of the files lie there."""
        files = self.shards()
        for k in range(block.start // self.each, (block.stop - 1) // self.each + 1):
            first, last = max(block.start, k * self.each), min(block.stop, (k + 1) * self.each)
            yield files[k], slice(first - block.start, last - block.start)

    def _whole_files(self) -> list[Block]:
        """Blocks of WebP files; what a killed process left behind the last whole one is cut off."""
        whole: list[Block] = []
        files, ends = self.shards(), dict.fromkeys(self.shards(), 0)
        content = {file: file.open("rb") for file in files if file.is_file()}
        try:
            for block in self.blocks():
                crc, sizes = 0, {}
                for file, rows in self._pieces(block):
                    sizes[file] = sum(block.sizes[rows])
                    crc = zlib.crc32(
                        content[file].read(sizes[file]) if file in content else b"", crc
                    )
                if crc != block.crc or block.start != (whole[-1].stop if whole else 0):
                    break
                whole.append(block)
                for file, size in sizes.items():
                    ends[file] += size
        finally:
            for stream in content.values():
                stream.close()
        for file, end in ends.items():
            with file.open("ab") as half:
                half.truncate(end)
        return whole


_Filled = list[tuple[Block, list[bytes]]]
_Item = tuple[int, int, list[int]]  # start, stop, and the numbers of the targets that lack them


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
        todo: list[_Item] = []
        for start in range(0, count, step):
            stop = min(start + step, count)
            if lacking := [k for k, spans in enumerate(done) if (start, stop) not in spans]:
                todo.append((start, stop, lacking))
        advance(count - sum(stop - start for start, stop, _ in todo))
        for (start, stop, lacking), results in self._results(todo):
            for k, (block, files) in zip(lacking, results, strict=True):
                if files:
                    self.targets[k].append(block, files)
                self.targets[k].note(block)
            advance(stop - start)

    def fill(self, start: int, stop: int, lacking: list[int]) -> _Filled:
        """Cut images ``start:stop`` to the targets ``lacking``.

        Raw pixels are written; of encoded targets the files are returned, to be appended in order.
        """
        targets = [self.targets[k] for k in lacking]
        done: _Filled = []
        for target, (images, enlarged) in zip(
            targets, self._cut(start, stop, targets), strict=True
        ):
            files: list[bytes] = []
            if target.encoded:
                files = [encode(image.transpose(1, 2, 0)) for image in images]
                crc = zlib.crc32(b"".join(files))
            else:
                target.write(start, images)
                crc = zlib.crc32(np.ascontiguousarray(images).data)
            done.append((Block(start, stop, enlarged, crc, [len(f) for f in files]), files))
        return done

    def _cut(self, start: int, stop: int, targets: list[Target]) -> list[tuple[Pixels, int]]:
        """For each target the images, and how many of them were enlarged."""
        sides, count = [target.resolution for target in targets], stop - start
        if (arrays := self.source.array(start, stop)) is not None:
            height, width = arrays.shape[2:]
            small = [count * enlarges(width, height, side, self.pad_to) for side in sides]
            cuts = [cut_batch(arrays, side, self.recipe, self.pad_to) for side in sides]
            return list(zip(cuts, small, strict=True))
        cuts = [np.empty((count, 3, side, side), np.uint8) for side in sides]
        small = [0] * len(sides)
        for i in range(start, stop):
            image = self.source.load(i)
            for k, side in enumerate(sides):
                small[k] += enlarges(*image.size, side, self.pad_to)
                try:
                    pixels = cut(image, side, self.recipe, self.pad_to)
                except PagodaError as error:
                    raise PagodaError(f"{self.source.describe(i)} {error}; remove it") from error
                cuts[k][i - start] = pixels.transpose(2, 0, 1)
        return list(zip(cuts, small, strict=True))

    def _results(self, todo: list[_Item]) -> Iterator[tuple[_Item, _Filled]]:
        workers = min(cores(), len(todo))
        if workers < 2 or not self._worth_processes():
            for item in todo:
                yield item, self.fill(*item)
            return
        # Spawned, not forked: the parent runs threads (the progress bar, perhaps libraries').
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, _start_worker, (self,))
        waiting: deque[tuple[_Item, Future[_Filled]]] = deque()
        rest = iter(todo)
        try:
            while True:
                for item in itertools.islice(rest, _AHEAD * workers - len(waiting)):
                    with _interrupts_held():
                        waiting.append((item, pool.submit(_fill, *item)))
                if not waiting:
                    return
                item, result = waiting.popleft()
                yield item, result.result()
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


_worker: Cutting


def _start_worker(cutting: Cutting) -> None:
    global _worker
    _worker = cutting


def _fill(start: int, stop: int, lacking: list[int]) -> _Filled:
    return _worker.fill(start, stop, lacking)


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
