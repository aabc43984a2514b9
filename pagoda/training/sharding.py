"""Weights sharded over the processes (FSDP2), for networks that do not fit on one device.

Every process keeps a slice of each parameter, of its gradient, its averages and its optimiser's
state; a block's weights are gathered for the time it computes. What training computes stays what it
is, so this is no parameter of the configuration but a property of the machine, as the number of
processes is. Checkpoints hold full tensors: any number of processes reads them, sharded or not.
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
"""Environment variable: 1 shards the weights that a stage trains over its processes."""


def wanted() -> bool:
    """Whether networks are to be sharded; alone there is nothing to shard.

    Raises:
        PagodaError: the variable is neither 0 nor 1.
    """
    value = os.environ.get(SHARD, "0")
    if value not in ("0", "1"):
        raise PagodaError(f"{SHARD} = {value!r}; it must be 0 or 1")
    return value == "1" and distributed.world_size() > 1


def place(network: M, device: torch.device) -> M:
    """A network on its device, channels-last; one that will be sharded stays where it is.

    :func:`shard` moves that one block by block: no device ever holds all of it.
    """
    return network if wanted() else network.to(device).to(memory_format=torch.channels_last)


def shard(
    device: torch.device,
    *networks: nn.Module,
    keep: Callable[[Any], nn.Parameter] | None = None,
) -> None:
    """Shard networks over the group, in place, if that is wanted; all of them in the same way.

    All processes start from the main one's weights. FSDP2 takes contiguous weights only: they lose
    the channels-last layout, activations keep it.

    Args:
        keep: the parameter of a network that every process holds in full, because a loss
            differentiates by it outside of the backward pass.
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
            if isinstance(module, FSDPModule):  # losses carry their part of the batch: a plain sum
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
    """Refuse what sharded weights cannot be combined with.

    Raises:
        PagodaError: fp16, whose scaling looks at full gradients; or micro batches of which one
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
    module = sys.modules.get("torch.distributed.tensor")  # a second to import
    return module is not None and isinstance(tensor, module.DTensor)


def local(tensor: Any) -> Tensor:
    """What this process holds: its slice of a sharded tensor, any other itself. Shares memory."""
    held: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return held


def full_state_on_main(tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    """Copies of full tensors on the CPU of the main process; the others help, and get nothing."""
    out = {}
    for name, tensor in tensors.items():
        full = tensor.detach()
        full = full.full_tensor() if is_sharded(full) else full
        if distributed.is_main_process():
            out[name] = full.cpu().contiguous().clone()
    return out


def copy_like(full: Tensor, like: Any) -> Tensor:
    """A tensor that all processes hold, with type, layout and device of ``like``; sharded as it."""
    if is_sharded(like):
        from torch.distributed.tensor import distribute_tensor

        full = distribute_tensor(
            full.to(like.device), like.device_mesh, like.placements, src_data_rank=None
        )
    return torch.empty_like(like, requires_grad=False).copy_(full)


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """``torch.nn.utils.clip_grad_norm_`` for parameters some of which are sharded.

    Returns:
        The norm that all gradients had together.
    """
    clip = nn.utils.get_total_norm, nn.utils.clip_grads_with_norm_
    trained = [p for p in parameters if p.grad is not None]
    kinds = [[p for p in trained if is_sharded(p) == sharded] for sharded in (True, False)]
    norms: list[Any] = [
        clip[0]([p.grad for p in kind if p.grad is not None]) for kind in kinds if kind
    ]
    total = torch.stack([n.full_tensor() if is_sharded(n) else n for n in norms]).norm()
    for kind in kinds:
        clip[1](kind, limit, total)
    return total
