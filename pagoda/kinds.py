"""Which files each kind of artifact has, and what they hold."""

from __future__ import annotations

from dataclasses import dataclass

MODEL_FILE, CARD_FILE = "model.safetensors", "card.json"


@dataclass(frozen=True)
class FileSpec:
    """What one file of an artifact holds; ``ndim`` and ``dtypes`` are those of ``.npy``."""

    units: str
    ndim: int = 0
    dtypes: tuple[str, ...] = ()


_BYTES = ("uint8",)
_LABELS = FileSpec("class index", 1, ("int64",))
_PIXELS = FileSpec("pixels 0..255, NCHW, RGB", 4, _BYTES)
_NAMES = FileSpec("name of each image in its source, a line each, escaped")
_MODEL = {
    MODEL_FILE: FileSpec("weights of the exponential moving average"),
    CARD_FILE: FileSpec("architecture and training facts"),
}

KINDS: dict[str, dict[str, FileSpec]] = {
    "images": {
        **{f"{split}_{name}": spec for split in ("train", "test") for name, spec in
           {"images.npy": _PIXELS, "labels.npy": _LABELS, "names.txt": _NAMES}.items()},
        CARD_FILE: FileSpec("class names, recipe, source and its fingerprint"),
    },
    "codes": {
        "train_images.npy": FileSpec(
            "normalised codes of each training image and of its mirror image, N2CHW", 5,
            ("float32", "float16")),
        "train_labels.npy": _LABELS,
        "autoencoder.safetensors": FileSpec("weights of the autoencoder"),
        CARD_FILE: FileSpec("classes and recipe of the images, the autoencoder's card"),
    },
    "captioned": {
        "train_images.npy": _PIXELS,
        "train_labels.npy": FileSpec("number of the caption of each image", 1, ("int64",)),
        "captions.safetensors": FileSpec(
            "embeddings of the captions, numbers of those of held-out images, class of each; "
            "weights of the text encoder and of the CLIP that scores"),
        CARD_FILE: FileSpec("captions, recipe of the images, the text encoder's card"),
    },
    "reference": {
        "mean.npy": FileSpec("mean of features", 1, ("float64",)),
        "covariance.npy": FileSpec("covariance of features, ddof 1", 2, ("float64",)),
        "manifold.npy": FileSpec("features of real images for precision and recall", 2,
                                 ("float32", "float64")),
        CARD_FILE: FileSpec("split, n, extractor and data fingerprints"),
    },
    "latents": {
        "latents.npy": FileSpec("latents in the units of card.json, NCHW", 4,
                                ("float32", "float16")),
        "indices.npy": FileSpec("row of train_images", 1, ("int64",)),
        "flips.npy": FileSpec("1 where the image was mirrored first", 1, _BYTES),
        "labels.npy": _LABELS,
        CARD_FILE: FileSpec("units, solver, grid, round-trip error, moments of the latents"),
    },
    **dict.fromkeys(
        ("features", "autoencoder", "clip", "teacher", "generator", "super_resolution"), _MODEL
    ),
    "measurement": {"rows.json": FileSpec("one row a value; failures by resolution")},
    "evaluation": {
        "results.json": FileSpec("one row a value, with its protocol"),
        "samples.npy": FileSpec("sample grid (generators, classes, columns, C, H, W)", 6, _BYTES),
        "neighbours.npy": FileSpec("nearest training images of one sample grid", 6, _BYTES),
    },
}  # fmt: skip
"""The files of each kind of artifact."""
