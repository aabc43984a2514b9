"""Weights cut over the processes (FSDP2), for networks that do not fit on one device whole.

Every process keeps a slice of each parameter, of its gradient, its averages and its optimiser's
state; a block's weights are gathered for the time it computes. What training computes stays what it
is, so this is no parameter of the configuration but a property of the machine, as the number of
processes is. Checkpoints hold whole tensors: they are read by any number of processes, cut or not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pagoda import distributed
from pagoda.errors import PagodaError

M = TypeVar("M", bound=nn.Module)
SHARD = "PAGODA_SHARD"
"""Environment variable: 1 cuts the weights that a stage trains over its processes."""


def wanted() -> bool:
    """Whether networks are to be cut; alone there is nothing to cut.

    Raises:
        PagodaError: the variable is neither 0 nor 1.
    """
    value = os.environ.get(SHARD, "0")
    if value not in ("0", "1"):
        raise PagodaError(f"{SHARD} = {value!r}; it must be 0 or 1")
    return value == "1" and distributed.world_size() > 1


def place(network: M, device: torch.device) -> M:
    """A network on its device, channels-last; one that will be cut stays where it is until then.

    :func:`shard` then moves it block by block: no device ever holds it whole.
    """
    if wanted():
        return network
    return network.to(device).to(memory_format=torch.channels_last)


def shard(
    device: torch.device,
    *networks: nn.Module,
    keep: Callable[[Any], nn.Parameter] | None = None,
) -> None:
    """Cut networks over the group, in place, if that is wanted; all of them in the same way.

    All processes start from the first one's weights. FSDP2 cuts contiguous weights only: they
    lose the channels-last layout, activations keep it.

    Args:
        keep: the parameter of a network that stays whole, because a loss differentiates by it
            outside of the backward pass.
    """
    if not wanted():
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    for network in networks:
        distributed.broadcast_([*network.parameters(), *network.buffers()])
        network.to(memory_format=torch.contiguous_format)
        kept = {keep(network)} if keep else set()
        for weight in kept:
            weight.data = weight.data.to(device)
        for block in (*_blocks(network), network):
            fully_shard(block, mesh=mesh, ignored_params=kept)
        for module in network.modules():
            if isinstance(module, FSDPModule):  # losses carry their share of the batch: a plain sum
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)


def _blocks(network: nn.Module) -> list[nn.Module]:
    """The parts that are gathered one at a time: the innermost elements of lists of modules."""
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList)]
    return [
        element for elements in lists for element in elements
        if not any(isinstance(m, nn.ModuleList) for m in element.modules())
    ]  # fmt: skip


def check(precision: str, batches: Iterable[int], micro_batch: int | None) -> None:
    """Refuse what cut weights cannot be combined with.

    Raises:
        PagodaError: fp16, whose scaling looks at whole gradients; or micro batches of which one
            process would have more than another, which would wait for it forever.
    """
    if not wanted():
        return
    if precision == "fp16":
        raise PagodaError(f"{SHARD}=1 cannot be combined with precision = 'fp16'; use 'bf16'")
    if micro_batch is not None and any(n % distributed.world_size() for n in batches):
        raise PagodaError(
            f"{SHARD}=1 with micro_batch needs batches that {distributed.world_size()} processes "
            "divide; change the batch, or the number of processes by PAGODA_PROCESSES"
        )


def is_sharded(tensor: Tensor) -> bool:
    """Whether a process holds a slice of it only."""
    module = sys.modules.get("torch.distributed.tensor")  # seconds to import, if nothing is cut
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this process holds: the slice of a cut tensor, any other itself. Shares its memory."""
    return _cut(tensor).to_local() if is_sharded(tensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The tensor itself; all processes must ask for a cut one."""
    return _cut(tensor).full_tensor() if is_sharded(tensor) else tensor


def shard_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, which all processes hold, cut as ``like`` is."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = _cut(like).device_mesh, _cut(like).placements
    return distribute_tensor(tensor.to(like.device), mesh, placements, src_data_rank=None)


def _cut(tensor: Tensor) -> Any:
    """A DTensor, whose type would take seconds to import."""
    return tensor


def full_state_on_main(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors on the CPU of the first process; the others help, and get nothing."""
    out = {}
    for name, tensor in tensors.items():
        full = full_tensor(tensor.detach())
        if distributed.is_main_process():
            out[name] = full.cpu().contiguous().clone()
    return out


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients down to a norm of ``limit`` and return the norm they had.

    ``torch.nn.utils.clip_grad_norm_`` for parameters some of which are cut: their squares are
    summed over the processes.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    slices = [local(g) for g in gradients if is_sharded(g)]
    others = [g for g in gradients if not is_sharded(g)]
    total = _square(slices, slices[0])
    distributed.all_reduce_([total])
    norm = (total + _square(others, slices[0])).sqrt()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([*slices, *others], factor)
    return norm


def _square(tensors: list[Tensor], like: Tensor) -> Tensor:
    """The sum of squares of all entries."""
    total = torch.zeros((), dtype=like.dtype, device=like.device)
    filled = [t for t in tensors if t.numel()]
    return total + torch.stack(torch._foreach_norm(filled)).square().sum() if filled else total
