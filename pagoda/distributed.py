"""Several processes that share a stage: who am I, which rows are mine, and a few collectives.

A stage joins the process group that ``torchrun``, Slurm or ``pagoda --processes`` started; alone,
every function here does nothing. The number of processes changes how fast a stage is, never what it
computes: a batch is divided into contiguous parts (:func:`local_rows`), gradients and statistics
are summed (:func:`all_reduce_`), and only the main process writes.

The elastic agent that started the processes ends them all when one fails or dies. A process that
hangs is noticed when the others have waited :data:`TIMEOUT` in a collective.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from pagoda.errors import PagodaError, first_line

if TYPE_CHECKING:
    import numpy as np
    import torch

LAUNCHED = "PAGODA_LAUNCHED"
"""Set for processes that :mod:`pagoda.pipeline.launcher` started; it reports their end itself."""

TIMEOUT = "PAGODA_TIMEOUT"
"""Environment variable: seconds that a collective waits for the other processes, 1800."""

_GRACE_S = 5.0  # for the agent to end a process that only lost the others
_LOST = ("gloo", "nccl", "connection", "socket", "peer", "timed out", "broken pipe")


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
    joined = _joined()
    return int(joined.get_world_size()) if joined else 1


def is_main_process() -> bool:
    """Whether this is the process that writes artifacts, scratch and history."""
    return rank() == 0


def local_rows(n: int, multiple: int = 1) -> slice:
    """This process's contiguous part of ``n`` rows; parts differ by ``multiple`` rows at most.

    Args:
        multiple: divide only at multiples of this, so that calls of a network see the same batches
            whatever the number of processes, and give the same bits.
    """
    blocks, world, me = -(-n // multiple), world_size(), rank() if world_size() > 1 else 0
    ends = (min(n, blocks * i // world * multiple) for i in (me, me + 1))
    return slice(*ends)


def barrier() -> None:
    """Return when every process has come here."""
    all_reduce_max([0.0])  # by gloo: a barrier of NCCL would need a GPU


def all_reduce_(tensors: Iterable[torch.Tensor]) -> None:
    """Replace every tensor by its sum over the processes, in place, in messages of 32 MiB."""
    if joined := _joined():
        from torch import _utils as messages  # as torch's own data parallelism makes them

        for bucket in messages._take_tensors([t.detach() for t in tensors], 1 << 25):
            flat = messages._flatten_dense_tensors(bucket)
            joined.all_reduce(flat)
            for tensor, total in zip(
                bucket, messages._unflatten_dense_tensors(flat, bucket), strict=True
            ):
                tensor.copy_(total)


def all_reduce_with_gradient(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of a tensor over the processes, differentiable any number of times.

    Its gradient is the derivative of the sum of all processes' losses.
    """
    return _sum_function().apply(tensor) if _joined() else tensor


@cache
def _sum_function() -> Any:
    """Sum over processes whose backward pass is itself; made late because it needs torch."""
    import torch

    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
            total = tensor.detach().clone(memory_format=torch.contiguous_format)
            torch.distributed.all_reduce(total)
            return total

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return all_reduce_with_gradient(gradient)

    return Sum


def all_reduce_max(values: list[float]) -> list[float]:
    """The largest of each value over the processes, the same list on all of them."""
    if joined := _joined():
        import torch

        tensor = torch.tensor(values, dtype=torch.float64)
        joined.all_reduce(tensor, joined.ReduceOp.MAX)
        return [float(v) for v in tensor]
    return values


def broadcast_(tensors: Iterable[torch.Tensor]) -> None:
    """Overwrite every tensor with the main process's."""
    if joined := _joined():
        for tensor in tensors:
            sent = tensor.detach().contiguous()
            joined.broadcast(sent, 0)
            tensor.detach().copy_(sent)


def broadcast_object(value: Any) -> Any:
    """The main process's value, on every process."""
    values = [value]
    if joined := _joined():
        joined.broadcast_object_list(values)
    return values[0]


def all_gather_rows(rows: np.ndarray) -> np.ndarray:
    """All processes' rows in the order of their parts, on every process."""
    joined = _joined()
    if not joined:
        return rows
    import numpy as np

    parts: list[Any] = [None] * world_size()
    joined.all_gather_object(parts, rows)
    return np.concatenate(parts)


@contextmanager
def group() -> Iterator[None]:
    """Join the process group of the environment for the length of the block; alone without one.

    Raises:
        PagodaError: the group cannot be joined, or another process is gone or hangs. The agent then
            ends this process before it speaks, and says why the other one failed.
    """
    if launched_world_size() == 1 or _joined():
        yield
        return
    from torch import distributed

    _join(timedelta(seconds=_timeout()))
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        time.sleep(_GRACE_S)
        why = first_line(error).rpartition("] ")[2]  # after the line of gloo's source
        raise PagodaError(
            f"the other processes are gone or hang ({why}); run the same command again to go on"
        ) from error
    finally:
        with suppress(RuntimeError):
            distributed.destroy_process_group()


def record_failure(message: str) -> None:
    """Leave the reason why this process fails where the elastic agent looks for it."""
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with open(path, "w", encoding="utf-8") as stream:
            json.dump({"message": message, "timestamp": int(time.time())}, stream)


def _join(timeout: timedelta) -> None:
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    if LAUNCHED in os.environ and sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # an orderly stop when the agent is killed
    try:
        store, me, world = next(rendezvous("env://", timeout=timeout))
        # A group that is started again finds the store of the one that died, and addresses in it.
        attempt = PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        distributed.init_process_group(
            backend, store=attempt, rank=me, world_size=world, timeout=timeout
        )
    except (RuntimeError, ValueError) as error:
        raise PagodaError(
            f"process {rank()} of {launched_world_size()} cannot join its group: "
            f"{first_line(error)}; check MASTER_ADDR, MASTER_PORT, RANK and WORLD_SIZE"
        ) from error


def _timeout() -> float:
    text = os.environ.get(TIMEOUT, "1800")
    if not text.isdigit() or int(text) < 1:
        raise PagodaError(f"{TIMEOUT} = {text!r}; it must be a positive whole number of seconds")
    return int(text)


def _joined() -> Any:
    """``torch.distributed`` if a group was joined. torch is not imported to find out."""
    distributed = sys.modules.get("torch.distributed")
    return distributed if distributed and distributed.is_initialized() else None
