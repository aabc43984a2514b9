"""Several processes that share a stage: who am I, which rows are mine, sums and barriers.

A stage joins the group that ``torchrun``, Slurm or any launcher that sets the usual variables
started (:mod:`pagoda.launcher` starts one itself); alone, every function here does nothing. The
number of processes changes how fast a stage is, never what it computes: batches are cut into
contiguous shares of one global batch (:func:`local_rows`), gradients and statistics are summed
(:func:`all_reduce_`), and only the first process writes.

A process that fails tells the others through the group's store, and a process that dies without a
word stops beating: the others stop with one line either way (:class:`_Watch`).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from pagoda.errors import PagodaError

if TYPE_CHECKING:
    import numpy as np
    import torch

LAUNCHED = "PAGODA_LAUNCHED"
"""Set for processes that :mod:`pagoda.launcher` started; it reports their end itself."""

_FOREVER = timedelta(days=7)  # a share may take hours longer than another; the watch finds the dead
_BEAT_S = 1.0
_PATIENCE_S = 40.0  # of silence, until a process counts as lost
_GRACE_S = 5.0  # for the main thread to leave by itself once the group is known to be lost
_FAILURE = "failure"


class GroupLost(PagodaError):
    """Another process of the group failed; the message says which and why."""


def launched_world_size() -> int:
    """How many processes the launcher says there are, before :func:`group` joins them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if launched_world_size() > 1 else 0


def local_rank() -> int:
    """Number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if launched_world_size() > 1 else 0


def world_size() -> int:
    """Number of processes in the group, 1 if there is none."""
    distributed = _distributed()
    return int(distributed.get_world_size()) if distributed else 1


def is_main_process() -> bool:
    """Whether this is the process that writes artifacts, scratch and history."""
    return rank() == 0


def local_rows(n: int, multiple: int = 1) -> slice:
    """This process's contiguous part of ``n`` rows; parts differ by ``multiple`` rows at most.

    Args:
        multiple: cut only at multiples of this, so that calls of a network see the same batches
            whatever the number of processes, and give the same bits.
    """
    blocks, world, me = -(-n // multiple), world_size(), rank() if world_size() > 1 else 0
    return slice(
        min(n, blocks * me // world * multiple), min(n, blocks * (me + 1) // world * multiple)
    )


def local_fraction(n: int) -> float:
    """This process's share of ``n`` rows as a factor: means weighted by it add up to the mean."""
    mine = local_rows(n)
    return (mine.stop - mine.start) / n


def part_streams() -> None:
    """Give each process random numbers of its own from here on, for dropout."""
    if _distributed():
        import torch

        torch.manual_seed(torch.initial_seed() + rank())


def barrier() -> None:
    """Return when every process has come here."""
    if distributed := _distributed():
        distributed.all_reduce(_doubles([0.0]))  # gloo: a barrier of NCCL would need a GPU


def all_reduce_(tensors: Iterable[torch.Tensor]) -> None:
    """Replace every tensor by its sum over the processes, in place, a few large messages."""
    if distributed := _distributed():
        for bucket in _buckets(tensors):
            flat = _flatten(bucket)
            distributed.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                tensor.copy_(part.view(tensor.shape))


def all_reduce_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over the processes, differentiable any number of times.

    Its gradient is the derivative of the sum of all processes' losses.
    """
    return _sum_function().apply(tensor) if _distributed() else tensor


def all_reduce_max(values: list[float]) -> list[float]:
    """The largest of each value over the processes, the same list on all of them."""
    if distributed := _distributed():
        tensor = _doubles(values)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return [float(v) for v in tensor]
    return values


def broadcast_(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite every tensor with the first process's."""
    if distributed := _distributed():
        for tensor in tensors:
            sent = tensor.detach().contiguous()
            distributed.broadcast(sent, 0)
            tensor.detach().copy_(sent)


def broadcast_object(value: Any) -> Any:
    """The first process's value (anything JSON can hold), on every process."""
    distributed = _distributed()
    if not distributed:
        return value
    import torch

    text = json.dumps(value).encode() if is_main_process() else b""
    size = int(all_reduce_max([float(len(text))])[0])
    sent = torch.frombuffer(bytearray(text.ljust(size)), dtype=torch.uint8)
    distributed.broadcast(sent, 0)
    return json.loads(sent.numpy().tobytes())


def all_gather_rows(rows: np.ndarray) -> np.ndarray:
    """All processes' rows in the order of their shares, on every process."""
    distributed = _distributed()
    if not distributed:
        return rows
    import numpy as np
    import torch

    lengths = [0.0] * world_size()
    lengths[rank()] = float(len(rows))
    most = int(max(lengths := all_reduce_max(lengths)))
    padded = np.zeros((most, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    mine = torch.frombuffer(bytearray(padded.tobytes()), dtype=torch.uint8)
    parts = [torch.empty_like(mine) for _ in range(world_size())]
    distributed.all_gather(parts, mine)
    arrays = [p.numpy().view(rows.dtype).reshape(padded.shape) for p in parts]
    return np.concatenate([a[: int(n)] for a, n in zip(arrays, lengths, strict=True)])


@contextmanager
def group() -> Iterator[None]:
    """Join the process group of the environment for the length of the block; alone without one.

    Raises:
        GroupLost: another process failed or died.
    """
    if launched_world_size() == 1 or _distributed():
        yield
        return
    watch = _join()
    try:
        yield
        barrier()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        watch.report(error)
        raise
    finally:
        watch.stop()
        with contextlib.suppress(RuntimeError):
            _leave()


def _join() -> _Watch:
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    try:
        store, me, world = next(rendezvous("env://", timeout=timedelta(minutes=10)))
        watch = _Watch(store.clone(), me, world)
        distributed.init_process_group(
            backend, store=PrefixStore("pagoda", store), rank=me, world_size=world,
            timeout=_FOREVER,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        raise PagodaError(
            f"process {rank()} of {launched_world_size()} cannot join its group: "
            f"{str(error).splitlines()[0]}; check MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE"
        ) from error
    watch.start()
    return watch


def _leave() -> None:
    from torch import distributed

    distributed.destroy_process_group()


class _Watch(threading.Thread):
    """Beats for this process and watches the others, through the group's store.

    The first process watches all, the others watch the first, by their own steady clocks. When the
    group is lost the main thread has a few seconds to leave by itself; it may hang in a collective.
    """

    def __init__(self, store: Any, me: int, world: int) -> None:
        super().__init__(name="pagoda-watch", daemon=True)
        self.store, self.me, self.world = store, me, world
        self.lost: str | None = None
        self._done = threading.Event()
        self._left = False
        self._parent = os.getppid()
        self._heard = time.monotonic()  # when the store last answered
        self.store.set(f"beat/{me}", "0")

    def run(self) -> None:
        """Watch until :meth:`stop` or until the group is lost."""
        threading.Thread(target=self._exchange, name="pagoda-beat", daemon=True).start()
        looked = time.monotonic()
        while not self._done.wait(_BEAT_S):
            now = time.monotonic()
            if now - looked > 5 * _BEAT_S:  # this process was stopped itself, by Ctrl-Z perhaps
                self._heard = now
            looked = now
            # The store is a part of the first process: when that freezes, so does every question.
            if now - self._heard > _PATIENCE_S:
                self.lost = self.lost or self._silent(0)
            if os.environ.get(LAUNCHED) and os.getppid() != self._parent:
                self.lost = "the process that started the group is gone"
            if self.lost:
                self._abandon(self.lost)
                return

    def _exchange(self) -> None:
        """Beat, and look at the others' beats."""
        watched = [r for r in range(self.world) if r != self.me] if self.me == 0 else [0]
        seen = {r: ("", time.monotonic()) for r in watched}
        beat = 0
        while not self.lost and not self._done.wait(_BEAT_S):
            beat += 1
            try:
                self.store.set(f"beat/{self.me}", str(beat))
                found = self._look(seen)
            except RuntimeError:  # the store went with the process that kept it
                found = "the process that kept the group together is gone"
            self._heard = time.monotonic()
            self.lost = self.lost or found

    def _look(self, seen: dict[int, tuple[str, float]]) -> str | None:
        if self.store.check([_FAILURE]):
            failure = json.loads(self.store.get(_FAILURE))
            if failure["rank"] != self.me:
                return f"process {failure['rank']} of {self.world} failed: {failure['message']}"
        now = time.monotonic()
        for other, (last, since) in seen.items():
            if not self.store.check([f"beat/{other}"]):
                continue  # it has not joined yet; joining has its own limit
            beat = self.store.get(f"beat/{other}").decode()
            if beat == "left":
                continue
            if beat != last:
                seen[other] = (beat, now)
            elif last and now - since > _PATIENCE_S:
                return self._silent(other)
        return None

    def _silent(self, other: int) -> str:
        """What is said of a process that died or froze without a word; a launcher cannot know."""
        message = (
            f"process {other} of {self.world} is gone or hangs, nothing was heard of it for "
            f"{_PATIENCE_S:g} s; run the same command again to go on"
        )
        if os.environ.get(LAUNCHED) and self.me == (1 if other == 0 else 0):
            sys.stderr.write(f"error: {message}\n")
        return message

    def report(self, error: BaseException) -> None:
        """Tell the others why this process ends, or raise what ended another one first.

        Raises:
            GroupLost: ``error`` is only the echo of another process's end.
        """
        if _from_group(error):
            limit = time.monotonic() + _GRACE_S - 1
            while self.lost is None and time.monotonic() < limit:
                time.sleep(0.1)
            raise GroupLost(self.lost or "another process of the group died") from error
        text = str(error) or type(error).__name__
        if not isinstance(error, PagodaError):
            text = f"{type(error).__name__}: {text}"
        message = json.dumps({"rank": self.me, "message": text.splitlines()[0]})
        with contextlib.suppress(RuntimeError):
            self.store.compare_set(_FAILURE, "", message)
        time.sleep(3 * _BEAT_S)  # the store may live in this process: let the others read it

    def stop(self) -> None:
        """End the watch."""
        self._done.set()
        with contextlib.suppress(RuntimeError):
            self.store.set(f"beat/{self.me}", "left")

    def _abandon(self, message: str) -> None:
        if self._done.wait(_GRACE_S):
            return
        if not os.environ.get(LAUNCHED):
            sys.stderr.write(f"error: {message}\n")
        os._exit(1)


def _from_group(error: BaseException) -> bool:
    """Whether an error is a broken connection to another process, by its wording."""
    words = ("gloo", "nccl", "connection", "socket", "peer")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def _distributed() -> Any:
    """``torch.distributed`` if a group was joined. torch is not imported to find out."""
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_initialized() else None


@cache
def _sum_function() -> Any:
    """Sum over processes whose backward pass is itself; made late because it needs torch."""
    import torch

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
            out = tensor.detach().clone(memory_format=torch.contiguous_format)
            torch.distributed.all_reduce(out)
            return out

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return all_reduce_with_gradient(gradient)

    return Sum


def _doubles(values: list[float]) -> torch.Tensor:
    import torch

    return torch.tensor(values, dtype=torch.float64)


def _buckets(tensors: Iterable[torch.Tensor], most: int = 1 << 25) -> Iterator[list[torch.Tensor]]:
    """Tensors of one dtype and device together, up to ``most`` bytes."""
    waiting: dict[Any, list[torch.Tensor]] = {}
    size: dict[Any, int] = {}
    for tensor in tensors:
        kind = (tensor.dtype, tensor.device)
        waiting.setdefault(kind, []).append(tensor)
        size[kind] = size.get(kind, 0) + tensor.nbytes
        if size[kind] >= most:
            yield waiting.pop(kind)
            size[kind] = 0
    yield from waiting.values()


def _flatten(tensors: list[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat([t.detach().reshape(-1) for t in tensors])
