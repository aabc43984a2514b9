"""Reference statistics published by others: ``.npz`` files with ``mu`` and ``sigma``.

================ ================================================== =======================
publisher        keys                                               Inception mode
================ ================================================== =======================
EDM, EDM2        mu, sigma                                          legacy_tensorflow
ADM              mu, sigma; mu_s, sigma_s for sFID; and, in         legacy_tensorflow
                 ``VIRTUAL_*`` files, 10,000 images ``arr_0``
clean-fid        mu, sigma                                          in the file's name
pytorch-fid      mu, sigma                                          legacy_pytorch (say so)
================ ================================================== =======================

Nothing in a file but clean-fid's name says which network made it, so the mode is taken from the
table unless it is stated. None says how many images were used: their ``n`` is unknown.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from pagoda.artifacts import sha256
from pagoda.data.npz import Npz
from pagoda.errors import PagodaError
from pagoda.evaluation.files import open_images
from pagoda.evaluation.reference import Reference, checked, reference_of
from pagoda.evaluation.streaming import Images

_CLEANFID_NAME = re.compile(r"_(clean|legacy_tensorflow|legacy_pytorch)_[a-z0-9]+_[a-z0-9]+\.npz$")
_DEFAULT_MODE = "legacy_tensorflow"


def holds_statistics(path: Path) -> bool:
    """Whether a file is an ``.npz`` with ``mu``."""
    if path.suffix != ".npz" or not zipfile.is_zipfile(path):
        return False
    return "mu" in Npz(path).keys


def refuse_pickle(path: Path) -> None:
    """EDM2 publishes pickles; unpickling can run any code.

    Raises:
        PagodaError: if the name is a pickle's.
    """
    if path.suffix in (".pkl", ".pickle"):
        raise PagodaError(
            f"{path} is a pickle, which can run any code, and is not read; convert it where you "
            "trust it: numpy.savez('ref.npz', mu=..., sigma=...)"
        )


def read_statistics(path: Path, features: str | None) -> Reference:
    """Statistics of a published file.

    Args:
        path: an ``.npz`` file.
        features: name of the extractor that made it; None goes by the module's table.

    Raises:
        PagodaError: if the file is damaged, lacks a key, or holds something else.
    """
    file = Npz(path)
    keys = [key for key in ("mu", "sigma", "mu_s", "sigma_s") if key in file.keys]
    arrays = {key: file.member(key).array() for key in keys}
    if "sigma" not in arrays:
        raise PagodaError(f"{path} has mu but no sigma; it has {', '.join(arrays)}")
    spatial = None
    if "mu_s" in arrays and "sigma_s" in arrays:
        spatial = checked(f"{path} (spatial)", arrays["mu_s"], arrays["sigma_s"])
    named = _CLEANFID_NAME.search(path.name.lower())
    mode = named[1] if named else _DEFAULT_MODE
    identity = sha256(path)
    card = {
        "images": None, "recipe": None, "resolution": None, "split": None, "n": None,
        "extractor": features or f"inception_{mode}", "extractor_fingerprint": None,
        "manifold_n": 0, "identity": identity,
    }  # fmt: skip
    pooled = checked(str(path), arrays["mu"], arrays["sigma"])
    return reference_of(str(path), card, pooled, spatial)


def reference_images(path: Path) -> Images | None:
    """The images ``arr_0`` beside the statistics of an ADM reference batch, None if it has none."""
    return open_images(path) if "arr_0" in Npz(path).keys else None
