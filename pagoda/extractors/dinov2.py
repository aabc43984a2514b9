"""DINOv2 (Oquab et al. 2023) through ``torch.hub``, at a pinned commit.

=====  ============================================================================= =============
resize what it does to 224 x 224                                                     used by
=====  ============================================================================= =============
dgm    Pillow bicubic, antialiased, rounded to uint8 (torchvision's ``Resize``)      dgm-eval
edm2   torch bicubic, antialiased, float32, neither clamped nor rounded              EDM2
=====  ============================================================================= =============

Both divide by 255 and apply ImageNet's mean and standard deviation. Features are the normalised
class token. The commit is the head of the repository from February 2024 to May 2025; it fixed the
interpolation of positions, so features of earlier checkouts may differ.
"""

from __future__ import annotations

import urllib.error
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pagoda.artifacts import digest, sha256
from pagoda.errors import PagodaError
from pagoda.extractors.base import Extractor, Forward, Outputs, sizes
from pagoda.extractors.resize import normalise, pil_bicubic, torch_bicubic
from pagoda.extractors.weights import WeightFile, find_weights

REPOSITORY = "facebookresearch/dinov2"
COMMIT = "e1277af2ba9496fbadf7aec6eba56e8d882d1e35"
NETWORKS = ("vits14", "vitb14", "vitl14", "vitg14")
RESIZES = ("dgm", "edm2")
_SIDE = 224
_URL = "https://dl.fbaipublicfiles.com/dinov2"


def weight_file(network: str) -> WeightFile:
    """The published weights of one of :data:`NETWORKS`."""
    name = f"dinov2_{network}_pretrain.pth"
    return WeightFile("DINOv2 weights", name, f"{_URL}/dinov2_{network}/{name}")


def open_dinov2(
    network: str,
    resize: str,
    device: torch.device,
    batch: int,
    weights: Path | None = None,
    code: Path | None = None,
    download: bool = False,
) -> Extractor:
    """A DINOv2 network without registers.

    Args:
        network: one of :data:`NETWORKS`.
        resize: one of :data:`RESIZES`.
        device: where it runs.
        batch: images a call.
        weights: the file, or a folder that holds it; None looks among ``torch.hub``'s checkpoints.
        code: a checkout of the repository; None looks in ``torch.hub``'s cache.
        download: fetch code and weights that are nowhere.

    Raises:
        PagodaError: for an unknown network or resize, or code or weights missing or damaged.
    """
    for value, known in ((network, NETWORKS), (resize, RESIZES)):
        if value not in known:
            raise PagodaError(f"DINOv2 has no {value!r}; it is one of {', '.join(known)}")
    folder = _checkout(code, download)
    path = find_weights(weight_file(network), weights, download)
    model = _build(folder, network)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load raises many types for a damaged file
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise PagodaError(f"{path} are no weights of dinov2_{network} ({why})") from error
    forward = _forward(model.to(device).eval().requires_grad_(False), resize, device)
    dim, _, _ = sizes(forward, False)
    card = {
        "network": network, "resize": resize, "side": _SIDE, "weights": sha256(path),
        "code": _code_digest(folder), "commit": COMMIT if code is None else "checkout",
    }  # fmt: skip
    name = f"dinov2_{network}_{resize}"
    same = {k: v for k, v in card.items() if k != "commit"}
    return Extractor(name, "dinov2", dim, None, None, card, digest([name, same]), forward, batch)


def _checkout(code: Path | None, download: bool) -> Path:
    folder = code or Path(torch.hub.get_dir()) / f"{REPOSITORY.replace('/', '_')}_{COMMIT}"
    if (folder / "hubconf.py").is_file():
        return folder
    if code is not None:
        raise PagodaError(f"{code} is no checkout of {REPOSITORY}: it has no hubconf.py")
    if not download:
        raise PagodaError(
            f"no DINOv2 code: {folder} is not there; clone https://github.com/{REPOSITORY} at "
            f"{COMMIT[:7]} and name it with --hub FOLDER, or let --download fetch it (a pipeline: "
            "reference.code, reference.download)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # xFormers is optional
            torch.hub.list(f"{REPOSITORY}:{COMMIT}", skip_validation=True, trust_repo=True)
    except (urllib.error.URLError, OSError) as error:
        raise PagodaError(
            f"cannot download the code of {REPOSITORY} ({getattr(error, 'reason', error)}); clone "
            f"it at {COMMIT[:7]} elsewhere and name it with --hub FOLDER (a pipeline: "
            "reference.code)"
        ) from error
    return folder


def _build(folder: Path, network: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # xFormers is optional
            return torch.hub.load(
                str(folder), f"dinov2_{network}", source="local", pretrained=False
            )
    except (RuntimeError, ImportError, AttributeError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise PagodaError(f"{folder} does not make dinov2_{network} ({why})") from error


def _forward(model: Any, resize: str, device: torch.device) -> Forward:
    def forward(images: np.ndarray, spatial: bool) -> Outputs:
        if resize == "dgm":
            x = torch.from_numpy(pil_bicubic(images, _SIDE)).to(device)
        else:
            x = torch_bicubic(torch.from_numpy(images).to(device), _SIDE)
        return Outputs(model(normalise(x)))

    return forward


def _code_digest(folder: Path) -> str:
    """SHA-256 over the Python files that make the network; equal for a clone and a zip archive."""
    files = [folder / "hubconf.py", *sorted(folder.glob("dinov2/**/*.py"))]
    return digest({str(f.relative_to(folder)): sha256(f) for f in files})
