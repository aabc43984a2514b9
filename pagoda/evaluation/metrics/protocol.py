"""Names of protocols: what was measured, in which features, on how many images."""

from __future__ import annotations


def protocol(distance: str, features: str, n: int, **settings: int) -> str:
    """Name of a measured value, e.g. ``fd_classifier_2k`` or ``precision_inception_50k_k3``.

    Values may share a column only if their protocols are equal.

    Args:
        distance: what is measured.
        features: the feature extractor and, where it matters, its mode.
        n: number of generated images.
        settings: anything else that changes the value, each as its letter and number.
    """
    extra = [f"{letter}{value}" for letter, value in settings.items()]
    return "_".join([distance, features, size(n), *extra])


def size(n: int) -> str:
    """A number of images in short: 50000 -> 50k, 2048 -> 2k, 500 -> 500, 1500 -> 1500."""
    for thousand in (1000, 1024):
        if n and n % thousand == 0:
            return f"{n // thousand}k"
    return str(n)
