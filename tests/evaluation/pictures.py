"""Small images in the forms that users have them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def pictures(n: int, side: int = 24, seed: int = 0) -> np.ndarray:
    """(n, side, side, 3) uint8: coloured gradients with noise."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, side)[None, :, None, None] * rng.uniform(0, 160, (n, 1, 1, 3))
    return np.clip(ramp + rng.uniform(0, 80, (n, side, side, 3)), 0, 255).astype(np.uint8)


def as_png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write_folder(folder: Path, images: np.ndarray) -> Path:
    for i, pixels in enumerate(images):
        path = folder / f"part{i % 2}" / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(as_png(pixels))
    return folder


def write_zip(path: Path, images: np.ndarray, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for i, pixels in enumerate(images):
            archive.writestr(f"{prefix}{i:05d}.png", as_png(pixels))
    return path
