"""The ``measurement`` artifact: what a variant of a study leaves for its collection."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pagoda import artifacts
from pagoda.config import VariantConfig
from pagoda.config.revision import code_revision
from pagoda.pipeline.stages.device import device_name, pick_device
from pagoda.pipeline.stages.made import open_made
from pagoda.pipeline.stages.study_spec import Study, Variant
from pagoda.rows import Row, to_json


def write_measurement(
    config: VariantConfig, study: Study, variant: Variant, rows: Iterable[Row],
    failures: Mapping[str, list[str]], grids: Mapping[str, np.ndarray],
) -> None:  # fmt: skip
    """Write the ``measurement`` of a variant.

    Args:
        config, study, variant: what was measured.
        rows: values; what they have in common is added.
        failures: signatures of failure by resolution.
        grids: pictures (n, 3, r, r) uint8 by name.
    """
    facts: dict[str, Any] = {
        "variant": variant.name,
        "axis": None if variant.axis is None else float(variant.axis),
        "training_seed": config.seed,
        "base_res": config.base_res,
        "revision": code_revision(),
        "device": device_name(pick_device()),
    }
    classifier = open_made(config, "features").fingerprint  # a row of another network says so
    identity = {"study": study.name, "variant": variant.name, "seed": config.seed,
                "name": config.name}  # fmt: skip
    with artifacts.create(config.places["measured"], "measurement", config=identity) as out:
        made = (dataclasses.replace(r, features=r.features or classifier, **facts) for r in rows)
        tree = {"rows": to_json(made)}
        artifacts.write_json(out / "rows.json", tree | {"failures": failures})
        for name, grid in grids.items():
            np.save(out / f"{name}.npy", grid)
