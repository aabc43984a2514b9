"""What one call or one training step takes, counted without values: operations and memory.

Networks and images are on torch's meta device, which holds shapes alone: any size, at once and
without memory. A step is the method's own, forward and backward as autograd runs it, so a frozen
part costs its forward pass and whatever of the backward pass has to go through it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pagoda.networks.layers import Frozen
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import Method
from pagoda.training.player import Player

META = torch.device("meta")


class FlopCounter(TorchDispatchMode):
    """Adds up ``flops`` of what runs inside, a multiply-add as two, by PyTorch's own formulae.

    Convolutions, matrix products and attention count; pointwise work does not. PyTorch's own
    ``FlopCounterMode`` hooks into modules, and fails in gradients of gradients at a leaf.
    """

    flops = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        return out


def forward_flops(network: Callable[..., object], *inputs: Tensor) -> float:
    """FLOPs of one call."""
    with torch.no_grad(), FlopCounter() as counter:
        network(*inputs)
    return counter.flops


def training_flops(network: Callable[..., Tensor], *inputs: Tensor) -> float:
    """FLOPs of one call and its backward pass; frozen parts cost what they really cost."""
    with torch.enable_grad(), FlopCounter() as counter:
        network(*inputs).float().sum().backward()
    return counter.flops


def parameters(network: nn.Module, *, trained: bool = False) -> int:
    """Number of parameters, or of those that train."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trained)


def networks_of(method: Method) -> list[list[nn.Parameter]]:
    """Weights of each network that a method keeps to train; shared ones are of the first."""
    own = [player.network for player in method.players.values()]
    others = [v for v in vars(method).values() if isinstance(v, nn.Module)]
    seen, found = set[int](), []
    for network in (*own, *others):
        if isinstance(network, Player):
            continue
        frozen = [m.frozen for m in network.modules() if isinstance(m, Frozen)]
        parts = [p for n in (network, *frozen) for p in n.parameters()]
        if new := {id(p): p for p in parts if id(p) not in seen}:
            found.append(list(new.values()))
        seen |= set(new)
    return found


class _Waiting:
    """Bytes of the tensors that autograd keeps, a storage once and weights not at all."""

    def __init__(self, method: Method) -> None:
        self._known = {_storage(p) for weights in networks_of(method) for p in weights}
        self._counts: Counter[int] = Counter()
        self._now = self.most = 0

    def keep(self, tensor: Tensor) -> _Kept:
        """Autograd keeps the tensor as long as what this returns lives."""
        key, size = _storage(tensor), tensor.untyped_storage().nbytes()
        if key not in self._known:
            self._counts[key] += 1
            self._now += size if self._counts[key] == 1 else 0
            self.most = max(self.most, self._now)
        return _Kept(tensor, self)

    def release(self, tensor: Tensor) -> None:
        """Autograd keeps it no more."""
        key = _storage(tensor)
        if key not in self._known:
            self._counts[key] -= 1
            self._now -= 0 if self._counts[key] else tensor.untyped_storage().nbytes()


class _Kept:
    def __init__(self, tensor: Tensor, waiting: _Waiting) -> None:
        self.tensor, self._waiting = tensor, waiting

    def __del__(self) -> None:
        self._waiting.release(self.tensor)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def kept_bytes(method: Method, i: int, progress: float) -> int:
    """The most bytes that wait for backward passes in step number ``i`` of a method."""
    waiting = _Waiting(method)
    with saved_tensors_hooks(waiting.keep, lambda kept: kept.tensor):
        _step(method, i, progress)
    return waiting.most


def step_flops(method: Method, i: int, progress: float) -> float:
    """FLOPs of step number ``i`` of a method on the meta device, without optimisers.

    The same at every call: how far an augmentation pads an image depends on what is drawn.
    """
    with FlopCounter() as counter:
        _step(method, i, progress)
    return counter.flops


def _step(method: Method, i: int, progress: float) -> None:
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(i)
        for loss in method.step(GlobalDraw(META), i, progress):
            method.players[loss.player].backward(loss.value)
    for player in method.players.values():
        player.network.zero_grad(set_to_none=True)
