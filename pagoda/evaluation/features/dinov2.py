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

The code runs. What :func:`open_dinov2` fetches, or finds in ``torch.hub``'s cache, must be that of
the commit, file by file; a checkout that is given is the user's to trust. No hash of the weights is
published: they are read as numbers, and their SHA-256 is on the card.
"""

from __future__ import annotations

import shutil
import tempfile
import urllib.error
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pagoda.artifacts import digest, sha256
from pagoda.errors import PagodaError, first_line
from pagoda.evaluation.features.base import Extractor, Family, Features, Forward, sizes
from pagoda.evaluation.features.resize import normalise, pil_bicubic, torch_bicubic
from pagoda.weight_files import WeightFile, find_weights, misfit, read_state

REPOSITORY = "facebookresearch/dinov2"
COMMIT = "e1277af2ba9496fbadf7aec6eba56e8d882d1e35"
CODE = "c6700b582ce902ac83846d16a4398dfb60fed48be1829215427af177b99c25da"
"""What :func:`code_digest` gives for a git checkout of the commit."""
NETWORKS = {"vits14": "small", "vitb14": "base", "vitl14": "large", "vitg14": "giant"}
"""timm's word for the size."""
RESIZES = ("dgm", "edm2")
_SIDE = 224
_URL = "https://dl.fbaipublicfiles.com/dinov2"
_CODE_URL = f"https://github.com/{REPOSITORY}/archive/{COMMIT}.zip"


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
    """One of :data:`NETWORKS`, without registers, with one of :data:`RESIZES`.

    Arguments as of :func:`.base.open_extractor`. What is not given, of ``weights`` and ``code``, is
    looked for in ``torch.hub``'s cache.

    Raises:
        PagodaError: for an unknown network or resize, or code or weights missing or damaged.
    """
    _check(network, resize)
    folder = _checkout(code, download)
    path = find_weights(weight_file(network), weights, download)
    model = _build(folder, network)
    state = read_state(path)
    if why := misfit(model, state):
        raise PagodaError(f"{path} are no weights of dinov2_{network}: it {why}")
    model.load_state_dict(state)
    forward = _forward(model.to(device).eval().requires_grad_(False), resize, device)
    dim, _, _ = sizes(forward, False)
    card = {
        "network": network, "resize": resize, "side": _SIDE, "weights": sha256(path),
        "code": code_digest(folder), "commit": COMMIT if code is None else "checkout",
    }  # fmt: skip
    name = f"dinov2_{network}_{resize}"
    same = {k: v for k, v in card.items() if k != "commit"}
    return Extractor(name, "dinov2", dim, None, None, card, digest([name, same]), forward, batch)


def _named(name: str) -> tuple[str, str]:
    """Network and resize: ``vitl14`` and ``dgm`` where they are left out."""
    network, _, resize = name.partition(":")
    return network or "vitl14", resize or "dgm"


def _check(network: str, resize: str) -> None:
    for value, known in ((network, tuple(NETWORKS)), (resize, RESIZES)):
        if value not in known:
            raise PagodaError(f"DINOv2 has no {value!r}; it is one of {', '.join(known)}")


def _backbone(name: str) -> str:
    return f"vit_{NETWORKS[_named(name)[0]]}_patch14_dinov2"


def _untrained(name: str) -> tuple[Callable[[], nn.Module], int]:
    import timm

    return partial(timm.create_model, _backbone(name), img_size=_SIDE), _SIDE


def _checkout(code: Path | None, download: bool) -> Path:
    folder = code or Path(torch.hub.get_dir()) / f"{REPOSITORY.replace('/', '_')}_{COMMIT}"
    if code is None and download and not folder.exists():
        _download(folder)
    if (folder / "hubconf.py").is_file():
        if code is None and code_digest(folder) != CODE:
            raise PagodaError(
                f"{folder} is not the code of {REPOSITORY} at {COMMIT[:7]}, so it is not run; "
                "delete it and let --download fetch it, or name a checkout with --hub FOLDER"
            )
        return folder
    if code is not None:
        raise PagodaError(f"{code} is no checkout of {REPOSITORY}: it has no hubconf.py")
    raise PagodaError(
        f"no DINOv2 code: {folder} is not there; clone https://github.com/{REPOSITORY} at "
        f"{COMMIT[:7]} and name it with --hub FOLDER, or let --download fetch it (a pipeline: "
        "reference.code, reference.download)"
    )


def _download(folder: Path) -> None:
    """Fetch the code into ``folder`` without running any of it, as ``torch.hub`` would."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            archive = Path(place) / "code.zip"
            torch.hub.download_url_to_file(_CODE_URL, str(archive), progress=False)
            zipfile.ZipFile(archive).extractall(place)
            shutil.move(next(Path(place).glob("*/hubconf.py")).parent, folder)
    except (urllib.error.URLError, OSError, zipfile.BadZipFile, StopIteration) as error:
        raise PagodaError(
            f"cannot download the code of {REPOSITORY} ({getattr(error, 'reason', error)}); clone "
            f"it at {COMMIT[:7]} elsewhere and name it with --hub FOLDER (a pipeline: "
            "reference.code)"
        ) from error


def _build(folder: Path, network: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # xFormers is optional
            return torch.hub.load(
                str(folder), f"dinov2_{network}", source="local", pretrained=False
            )
    except (RuntimeError, ImportError, AttributeError) as error:
        why = first_line(error)
        raise PagodaError(f"{folder} does not make dinov2_{network} ({why})") from error


def _forward(model: Any, resize: str, device: torch.device) -> Forward:
    def forward(images: np.ndarray, spatial: bool) -> Features[torch.Tensor]:
        if resize == "dgm":
            x = torch.from_numpy(pil_bicubic(images, _SIDE)).to(device)
        else:
            x = torch_bicubic(torch.from_numpy(images).to(device), _SIDE)
        return Features(model(normalise(x)))

    return forward


def code_digest(folder: Path) -> str:
    """SHA-256 over the Python files that make the network; equal for a clone and a zip archive."""
    files = [folder / "hubconf.py", *sorted(folder.glob("dinov2/**/*.py"))]
    return digest({str(f.relative_to(folder)): sha256(f) for f in files})


FAMILY = Family(
    f"dinov2[:{'|'.join(NETWORKS)}[:{'|'.join(RESIZES)}]]",
    lambda asked: open_dinov2(
        *_named(asked.name), asked.device, asked.batch, asked.weights, asked.hub, asked.download
    ),
    lambda name: _check(*_named(name)),
    _backbone,
    _untrained,
)
