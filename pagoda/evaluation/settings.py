"""What changes a measured value besides features and images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Settings of the metrics; each is in the protocol's name.

    Attributes:
        neighbours: k of precision, recall, density and coverage.
        splits: of the Inception Score and its like.
        subsets: of the kernel distance.
        subset_size: images a subset of the kernel distance.
        mmd_width: sigma of the Gaussian kernel, in the features' units.
    """

    neighbours: int = 3
    splits: int = 10
    subsets: int = 100
    subset_size: int = 1000
    mmd_width: int = 10
