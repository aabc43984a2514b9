"""What each kind of artifact holds: its files, their units, shapes and types."""

from __future__ import annotations

from dataclasses import dataclass

MODEL_FILE = "model.safetensors"
CARD_FILE = "card.json"


@dataclass(frozen=True)
class FileSpec:
    """What one file of an artifact holds. ``ndim`` and ``dtypes`` are checked for ``.npy``."""

    units: str
    ndim: int | None = None
    dtypes: tuple[str, ...] = ()


_LABELS = FileSpec("class index", 1, ("int64",))
_PIXELS = FileSpec("pixels 0..255, NCHW, RGB", 4, ("uint8",))
_MODEL = {
    MODEL_FILE: FileSpec("weights of the exponential moving average"),
    CARD_FILE: FileSpec("architecture and training facts"),
}

KINDS: dict[str, dict[str, FileSpec]] = {
    "images": {
        "train_images.npy": _PIXELS,
        "train_labels.npy": _LABELS,
        "test_images.npy": _PIXELS,
        "test_labels.npy": _LABELS,
        "train_names.txt": FileSpec("name of each image in its source, a line each, escaped"),
        "test_names.txt": FileSpec("name of each image in its source, a line each, escaped"),
        "card.json": FileSpec("class names, recipe, source and its fingerprint"),
    },
    "features": _MODEL,
    "reference": {
        "mean.npy": FileSpec("mean of features", 1, ("float64",)),
        "covariance.npy": FileSpec("covariance of features, ddof 1", 2, ("float64",)),
        "manifold.npy": FileSpec("features of real images for precision and recall", 2,
                                 ("float32", "float64")),
        "card.json": FileSpec("split, n, extractor and data fingerprints"),
    },
    "teacher": _MODEL,
    "latents": {
        "latents.npy": FileSpec("latents in the units of card.json, NCHW", 4,
                                ("float32", "float16")),
        "indices.npy": FileSpec("row of train_images", 1, ("int64",)),
        "flips.npy": FileSpec("1 where the image was mirrored first", 1, ("uint8",)),
        "labels.npy": _LABELS,
        "card.json": FileSpec("units, solver, grid, round-trip error, moments of the latents"),
    },
    "generator": _MODEL,
    "super_resolution": _MODEL,
    "measurement": {"rows.json": FileSpec("one row a value; failures by resolution")},
    "evaluation": {
        "results.json": FileSpec("one row a value, with its protocol"),
        "samples.npy": FileSpec("sample sheet (generators, classes, columns, C, H, W)", 6,
                                ("uint8",)),
        "neighbours.npy": FileSpec("nearest training images of one sample sheet", 6, ("uint8",)),
    },
}  # fmt: skip
