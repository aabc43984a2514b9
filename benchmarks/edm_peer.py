"""NVlabs/edm's own network, loss and sampler beside ours, with the same weights.

Its code is imported from a checkout that the user names and is no part of this repository: its
licence (CC BY-NC-SA 4.0) is not ours.
"""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import revision, whole_float32
from pagoda.losses.denoising import denoising_loss
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.unet import UNetSpec
from pagoda.weights.converted import Options
from pagoda.weights.read import read_weights

CLASSES = 10
_TOLERANCE = 1e-4  # float32 sums of some thousand terms in another order
_P_MEAN, _P_STD, SIGMA_DATA = -1.2, 1.2, 0.5


@dataclass(frozen=True)
class Size:
    """A network and a batch. Attention has 64 channels a head, which EDM's code fixes."""

    resolution: int
    channels: int
    mult: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    batch: int

    @property
    def name(self) -> str:
        """The case's name in the tables."""
        side = f"{self.resolution}x{self.resolution}"
        return f"{side}, {self.channels} channels, batch {self.batch}"

    def denoiser(self) -> Denoiser:
        """Our network of this size, random weights."""
        spec = UNetSpec(
            self.resolution, self.channels, self.mult, self.blocks, self.attention, 64, 0.0,
            CLASSES, time_scale=1.0,
        )  # fmt: skip
        return Denoiser(spec, SIGMA_DATA)


SMALL = [Size(32, channels, (1, 2, 2, 2), 1, (8,), batch)
         for channels in (32, 64) for batch in (16, 64)]  # fmt: skip
"""Sizes that two CPU cores bear: 1.9 and 7.6 million parameters."""

QUICK = [Size(32, 32, (1, 2, 2, 2), 1, (8,), 4)]

LARGE = [
    Size(32, 128, (1, 2, 2), 2, (16, 8), 512),
    Size(64, 192, (1, 2, 3, 4), 3, (32, 16, 8), 64),
]
"""For a GPU: a network of 32 million parameters, and the one of 296 million of the paper."""


def sizes(quick: bool) -> list[Size]:
    """What is measured on this machine."""
    if quick:
        return QUICK
    return LARGE if torch.cuda.is_available() else SMALL


class Edm:
    """A checkout of NVlabs/edm.

    Raises:
        SystemExit: if the folder holds none.
    """

    def __init__(self, checkout: Path) -> None:
        if not (checkout / "training" / "networks.py").is_file():
            raise SystemExit(f"error: {checkout} is no checkout of github.com/NVlabs/edm")
        sys.path.insert(0, str(checkout))
        self.checkout = checkout
        self._networks: Any = importlib.import_module("training.networks")
        self.loss: Any = importlib.import_module("training.loss").EDMLoss()

    @property
    def sampler(self) -> Any:
        """Its deterministic sampler (algorithm 1 where S_churn is 0)."""
        return importlib.import_module("generate").edm_sampler

    def revision(self) -> str | None:
        """The commit of the checkout, None if it does not say."""
        return revision(self.checkout)

    def network(self, size: Size, *, fp16: bool = False) -> nn.Module:
        """DhariwalUNet behind EDMPrecond, random weights, none of them zero."""
        torch.manual_seed(0)
        net = self._networks.EDMPrecond(
            size.resolution, 3, label_dim=CLASSES, use_fp16=fp16, model_type="DhariwalUNet",
            model_channels=size.channels, channel_mult=list(size.mult), num_blocks=size.blocks,
            attn_resolutions=list(size.attention), dropout=0.0,
        )  # fmt: skip
        for parameter in net.parameters():
            if not parameter.any():  # what starts at zero would hide mistakes behind it
                nn.init.normal_(parameter, std=0.02)
        return net


def ours(net: nn.Module) -> Denoiser:
    """Our network with the weights of EDM's, through the reader of ``pagoda import``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.pkl")
        path.write_bytes(pickle.dumps({"ema": copy.deepcopy(net).cpu().eval()}))
        module = read_weights(path, Options(kind="teacher")).module
    assert isinstance(module, Denoiser)
    return module.requires_grad_(True)


def inputs(size: Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images in [-1, 1] and classes."""
    random = torch.Generator().manual_seed(1)
    shape = (size.batch, 3, size.resolution, size.resolution)
    images = torch.rand(shape, generator=random) * 2 - 1
    return images.to(device), torch.randint(CLASSES, (size.batch,), generator=random).to(device)


def one_hot(labels: Tensor) -> Tensor:
    """Labels as EDM's networks take them."""
    return F.one_hot(labels, CLASSES).float()


def compare(edm: Edm, net: nn.Module, denoiser: Denoiser, size: Size) -> dict[str, float]:
    """Loss and gradient norm of both on the same noise, in float32 without TF32.

    Raises:
        SystemExit: if they differ by more than rounding.
    """
    with whole_float32():
        found = _compare(edm, net, denoiser, size)
    if max(found["loss_difference"], found["gradient_difference"]) > _TOLERANCE:
        raise SystemExit(f"error: {size.name}: the networks do not compute the same: {found}")
    return found


def _compare(edm: Edm, net: nn.Module, denoiser: Denoiser, size: Size) -> dict[str, float]:
    device = next(net.parameters()).device
    images, labels = inputs(size, device)
    torch.manual_seed(2)
    theirs = edm.loss(net, images, one_hot(labels)).mean()
    theirs.backward()
    torch.manual_seed(2)  # the loss draws noise levels, then noise
    sigma = (torch.randn(len(images), 1, 1, 1, device=device) * _P_STD + _P_MEAN).exp().flatten()
    mine = denoising_loss(denoiser, images, labels, sigma, torch.randn_like(images), SIGMA_DATA)
    mine.backward()
    norms = [_gradient_norm(net), _gradient_norm(denoiser)]
    found = {
        "loss": theirs.item(),
        "loss_difference": abs(mine.item() / theirs.item() - 1),
        "gradient_difference": abs(norms[1] / norms[0] - 1),
    }
    for module in (net, denoiser):
        module.zero_grad(set_to_none=True)
    return found


def _gradient_norm(module: nn.Module) -> float:
    squares = [p.grad.double().square().sum() for p in module.parameters() if p.grad is not None]
    return float(torch.stack(squares).sum().sqrt())


class EdmStep:
    """One update as EDM's training loop does it, on images that are there already.

    Its loss, Adam, gradients freed of infinities, and a loop over the weight average; without its
    data loader and its wrapper for several processes, which would cost it more time.
    """

    def __init__(self, edm: Edm, net: nn.Module, size: Size) -> None:
        self.net, self.loss = net.train().requires_grad_(True), edm.loss
        self.images, labels = inputs(size, next(net.parameters()).device)
        self.labels = one_hot(labels)
        self.average = copy.deepcopy(net).eval().requires_grad_(False)
        self.optimizer = torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8)

    def __call__(self) -> float:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(net=self.net, images=self.images, labels=self.labels)
        (loss.sum() / len(self.images)).backward()
        for parameter in self.net.parameters():
            if (g := parameter.grad) is not None:
                torch.nan_to_num(g, nan=0, posinf=1e5, neginf=-1e5, out=g)
        self.optimizer.step()
        with torch.no_grad():
            for kept, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
                kept.copy_(new.detach().lerp(kept, 0.99))
        return float(loss.mean())
