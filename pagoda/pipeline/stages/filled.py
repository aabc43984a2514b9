"""An array on disk that the processes of a stage fill together, and go on with after a stop."""

from __future__ import annotations

import contextlib
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from pagoda import distributed
from pagoda.data.shards import ShardedArray, create_shards
from pagoda.outputs import new_file
from pagoda.pipeline.stages.progress import track
from pagoda.training.history import HISTORY, History, read_rows

_DONE = "done"


class Filled:
    """Rows in scratch, made in batches that are cut in the same places in any number of processes.

    Every batch has a mark: the checksum of its rows, 0 before. A mark that does not fit what is
    written, after a power cut perhaps, is taken back.

    Args:
        folder: of all processes.
        name: of the array's files.
        dtype: of the array.
        shape: of the array.
        shard: rows a file.
        batch: rows that are made at a time.

    Attributes:
        rows: the array.
    """

    def __init__(
        self, folder: Path, name: str, dtype: str, shape: tuple[int, ...], shard: int, batch: int
    ) -> None:
        self._batch, batches = batch, -(-shape[0] // batch)
        file = folder / _DONE
        if distributed.is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
            rows = create_shards(folder, name, dtype, shape, shard)
            if not file.is_file() or file.stat().st_size != 4 * batches:
                with new_file(file) as partial:
                    # As bytes: numpy's tofile keeps quiet about a full disk.
                    partial.write_bytes(bytes(4 * batches))
            done = np.memmap(file, np.uint32, "r+")
            for k in np.flatnonzero(done).tolist():
                done[k] *= _checksum(rows[self._part(k, shape[0])]) == done[k]
        distributed.barrier()
        self.rows: ShardedArray = create_shards(folder, name, dtype, shape, shard)
        self._done = np.memmap(file, np.uint32, "r+")

    @property
    def finished(self) -> int:
        """Rows of the batches that are done."""
        return min(int(np.count_nonzero(self._done)) * self._batch, len(self.rows))

    def fill(
        self, make: Callable[[slice], np.ndarray], title: str,
        told: Callable[[int], None] = lambda rows: None,
    ) -> None:  # fmt: skip
        """Make every batch that is not done and falls to this process; wait for the others.

        Args:
            make: the rows of a slice, in the type of the array.
            title: of the bar.
            told: is told how many rows are done.
        """
        n, world = len(self.rows), distributed.world_size()
        todo = distributed.broadcast_object(np.flatnonzero(self._done == 0).tolist())
        bar = track(n, title) if distributed.is_main_process() else contextlib.nullcontext()
        with bar as progress:
            for turn, k in enumerate(todo[distributed.rank() :: world]):
                if turn % 64 == 63 and turn < len(todo) // world:
                    distributed.barrier()  # a fast process need not wait for hours at the end
                part = self._part(k, n)
                made = make(part)
                self.rows[part] = made
                self.rows.flush(part)  # a batch counts as done only when its rows are safe
                self._done[k] = _checksum(made)
                finished = self.finished
                told(finished)
                if progress is not None:
                    progress.advance(finished - progress.done)
        distributed.barrier()

    def _part(self, k: int, n: int) -> slice:
        return slice(k * self._batch, min((k + 1) * self._batch, n))


@contextlib.contextmanager
def history_of(path: Path, folder: Path, images: int) -> Iterator[Callable[..., None]]:
    """A function that appends a row to the first process's history; the others write nothing.

    Seconds go on from the last row kept of a stage that was stopped.

    Args:
        path: of the history.
        folder: where a copy is kept until the stage ends.
        images: those that are done.
    """
    if not distributed.is_main_process():
        yield lambda images, **values: None
        return
    with History(path, images, folder / HISTORY) as rows:
        kept = read_rows(rows.path)
        start = time.monotonic() - (json.loads(kept[-1])["seconds"] if kept else 0.0)

        def write(images: int, **values: float) -> None:
            rows.write(images=images, step=images, seconds=time.monotonic() - start, **values)

        yield write


def _checksum(rows: np.ndarray) -> int:
    """CRC-32 of a batch as it is stored; never 0."""
    return zlib.crc32(np.ascontiguousarray(rows).data) or 1
