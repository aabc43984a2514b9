"""Networks made here with the interfaces of published ones."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.artifacts import sha256


class Branch(nn.Module):
    """A block with a part called ``conv``, as the 2015 graph's mixed blocks have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, 9, 1), nn.ReLU())
        self.tower = nn.Sequential(nn.Conv2d(channels, 5, 3, padding=1), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.conv(x), self.tower(x)], 1)


class Inception(nn.Module):
    """The interface of ``inception-2015-12-05.pt`` with few weights."""

    def __init__(self, spatial: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            OrderedDict(
                [
                    ("conv", nn.Conv2d(3, 6, 7, stride=50)),
                    ("mixed_6" if spatial else "middle", Branch(6)),
                    ("last", nn.Conv2d(14, 2048, 1)),
                    ("relu", nn.ReLU()),
                    ("pool2", nn.AdaptiveAvgPool2d(1)),
                ]
            )
        )
        self.output = nn.Linear(2048, 1008)

    def forward(self, img: Tensor, return_features: bool = False) -> Tensor:
        """TensorFlow's grid by ``grid_sample``: another formula than the one under test."""
        n, c, h, w = img.shape
        theta = torch.eye(2, 3)
        theta[0, 2] += theta[0, 0] / w - theta[0, 0] / 299
        theta[1, 2] += theta[1, 1] / h - theta[1, 1] / 299
        theta = theta.unsqueeze(0).repeat([n, 1, 1])
        grid = F.affine_grid(theta, [n, c, 299, 299], align_corners=False)
        x = F.grid_sample(
            img.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        features = self.layers((x - 128) / 128).reshape(n, 2048)
        if return_features:
            return features
        return F.softmax(self.output(features), dim=1)


def write_inception(path: Path, spatial: bool = True) -> Inception:
    torch.manual_seed(1)
    network = Inception(spatial).eval()
    torch.jit.script(network).save(str(path))
    return network


def publish(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a stand-in for the published TorchScript, which no other file is."""
    monkeypatch.setattr("pagoda.evaluation.features.inception.TORCHSCRIPT", sha256(path))


def noise(n: int, height: int = 40, width: int = 40, seed: int = 0) -> np.ndarray:
    """Smooth-ish random images, so that resize filters differ."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 3, height // 4, width // 4))
    fine = rng.integers(-30, 31, (n, 3, height, width))
    return np.clip(coarse.repeat(4, 2).repeat(4, 3) + fine, 0, 255).astype(np.uint8)
