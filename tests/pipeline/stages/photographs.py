"""Experiments on the embedded set and on small photographs, as far as their images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pagoda import artifacts
from pagoda.config import Config, parse
from pagoda.config.paths import Paths
from pagoda.pipeline.stages import downsample
from tests.tiny import ROOT

TREE = yaml.safe_load((ROOT / "params.yaml").read_text())


def configured(**data: Any) -> Config:
    tree = copy.deepcopy(TREE)
    tree["data"] |= {
        "source": "embedded", "path": None, "hub": None, "render_res": 32, "variety": 0.7,
        "train_images": 60,
        "test_images": 20, "num_classes": 10, "recipe": "box", "pad_to": None,
        "test_share": None, "exif": False, "encode_from": None,
    } | data  # fmt: skip
    tree["evaluate"] |= {"neighbours": 1, "score_splits": 1}  # as few images allow
    return parse(tree)


def of_files(photos: Path, **data: Any) -> Config:
    settings = {"source": "folder", "path": str(photos), "num_classes": 2, "recipe": "adm",
                "train_images": None, "test_images": None}  # fmt: skip
    return configured(**(settings | data))


def written(config: Config, resolution: int) -> artifacts.Artifact:
    downsample.run(config, resolution)
    expect = {"name": config.name, "resolution": resolution}
    return artifacts.open_artifact(Paths(config).data(resolution), "images", expect)


def write_photos(root: Path) -> Path:
    """Two classes of photographs of all sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 4)):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(20, 90, 2)
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return root
