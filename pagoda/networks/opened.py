"""Networks with the weights of an artifact, without the random values that these replace."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pagoda.artifacts import Artifact
from pagoda.weight_files import NoRandomValues


def opened(artifact: Artifact, load: Callable[..., nn.Module]) -> nn.Module:
    """The network that ``load`` makes of an artifact."""
    with NoRandomValues():
        return artifact.network(load)
