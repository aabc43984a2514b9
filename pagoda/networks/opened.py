"""Networks with the weights of an artifact, without the random values that these replace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from pagoda.artifacts import Artifact


class _NoRandomValues(TorchFunctionMode):
    """Layers are made without the random values that those of a file replace at once.

    Drawing them takes seconds for a large network, and on the meta device, where shapes are
    compared first, it imports torch's compiler, which takes more than a second.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def opened(artifact: Artifact, load: Callable[..., nn.Module]) -> nn.Module:
    """The network that ``load`` makes of an artifact."""
    with _NoRandomValues():
        return artifact.network(load)
