"""Measures what a variant of a study has made and writes its ``measurement`` artifact."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pagoda import artifacts
from pagoda import rows as rows_of
from pagoda.config import VariantConfig
from pagoda.data.noise import standard_normal
from pagoda.data.pixels import to_uint8
from pagoda.data.shards import open_rows
from pagoda.data.store import open_images
from pagoda.evaluation.features.classifier import classifier_of
from pagoda.evaluation.metrics.drift import drift
from pagoda.evaluation.metrics.failure import gradient_spread, logit_gap, signatures
from pagoda.evaluation.metrics.high_frequency import high_frequency_energy
from pagoda.evaluation.metrics.normality import normality
from pagoda.evaluation.metrics.protocol import size
from pagoda.evaluation.reference import Reference, from_artifact
from pagoda.evaluation.scoring import Sample, score, wanted
from pagoda.evaluation.settings import Settings
from pagoda.evaluation.streaming import collect, subset
from pagoda.stages.compute import training_compute
from pagoda.stages.contest import Entry, Map, entries
from pagoda.stages.cost import sampling_costs
from pagoda.stages.device import device_name, pick_device
from pagoda.stages.paths import Paths
from pagoda.stages.progress import track
from pagoda.stages.revision import code_revision
from pagoda.stages.round_trip import round_trip_errors
from pagoda.stages.study_spec import Study, Variant

METRICS = ("fd", "precision", "recall", "accuracy")
_SHEET = 16  # samples kept of each generator, the same latents for all
_WARM_UP = 1  # calls that are not timed
_LATENTS = 4096  # latents whose law is looked at

Row = dict[str, Any]


def run(config: VariantConfig, study: Study, variant: Variant) -> None:
    """Score every generator of the variant, its latents and its training curves.

    ``rows.json`` holds one entry a value, in the columns of a study's results; ``failures`` names
    the signatures of failure by resolution.
    """
    artifacts.check_out(config.places["measured"], "measurement")
    device = pick_device()
    judge = Judge(config, device)
    made = entries(config, variant.steps, device)
    counted = training_compute(
        config, variant.steps or variant.counts, judge.classes, judge.train_images
    )
    curves = Curves(config, counted if variant.steps else {})
    rows, sheets = _latent_rows(config, variant), {}
    with track(config.studies.samples * len(made), "measure") as bar:
        for entry in made:
            seen = judge.observe(entry)
            bar.advance(len(seen.images))
            spent = curves.up_to(entry.resolution)
            rows += [row | spent for row in judge.score(entry, seen)]
            sheets[f"samples-{entry.name}-{entry.resolution}"] = seen.images[:_SHEET]
            lower = entry.resolution // 2
            if seen.below is not None and lower not in {e.resolution for e in made}:
                sheets[f"below-{lower}"] = seen.below[:_SHEET]
    rows += [*curves.rows(), *_cost_rows(config, variant, judge.classes, counted, device)]
    failures = {str(e.resolution): _failures(rows, e.resolution) for e in made if e.name == "grown"}
    facts: dict[str, Any] = {"training_seed": config.seed, "base_res": config.base_res,
             "features": judge.features.fingerprint, "revision": code_revision(),
             "device": device_name(device)}  # fmt: skip
    identity = {
        "study": study.name,
        "variant": variant.name,
        "seed": config.seed,
        "name": config.name,
    }
    with artifacts.create(config.places["measured"], "measurement", config=identity) as out:
        found = rows_of.to_json(rows_of.Row(**facts | row) for row in rows)
        tree = {"rows": found, "failures": failures}
        artifacts.write_json(out / "rows.json", tree)
        for name, images in sheets.items():
            np.save(out / f"{name}.npy", images)


@dataclasses.dataclass(frozen=True)
class Observed:
    """Images of an entry, of the generator below, and what sampling took.

    Attributes:
        images: (n, 3, r, r) uint8.
        below: (n, 3, r / 2, r / 2) uint8, or None.
        seconds: an image, over all timed batches.
    """

    images: np.ndarray
    below: np.ndarray | None
    seconds: float


class _Held:
    """Images in memory, as a pass over them reads them."""

    def __init__(self, images: np.ndarray) -> None:
        self._images, self.where = images, "samples"
        self.resolution = images.shape[2], images.shape[3]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """uint8 images (n, 3, r, r)."""
        return self._images[rows]

    def card(self) -> dict[str, object]:
        """Nothing to tell."""
        return {}


class Judge:
    """Real images and the feature network that a variant is held against."""

    def __init__(self, config: VariantConfig, device: torch.device) -> None:
        self.config, self.device, self.paths = config, device, Paths(config)
        where = {"name": config.name, "target_res": config.target_res}
        self.features = artifacts.open_artifact(self.paths.features, "features", where)
        card = self.features.card()
        self.classes = len(card["classes"])
        self.extractor = classifier_of(self.features, device, config.evaluate.batch)
        self.train_images = config.data.train_images or self._train_images()
        self.labels = np.arange(config.studies.samples) % self.classes
        self._last: tuple[Map | None, np.ndarray] = (None, np.empty(0))

    def _train_images(self) -> int:
        """How many training images there are, where the configuration says "all"."""
        where, expect = self.paths.data(self.config.base_res), {"name": self.config.name}
        return int(artifacts.open_artifact(where, "images", expect).card()["n"]["train"])

    def observe(self, entry: Entry) -> Observed:
        """Make the samples: sample i has class ``i % classes`` and the latent of (seed, i)."""
        images, seconds = self._make(entry.make)
        below = None
        if entry.below is not None:  # the stage below of a cascade has just been sampled
            below = self._last[1] if entry.below is self._last[0] else self._make(entry.below)[0]
        self._last = entry.make, images
        return Observed(images, below, seconds)

    @torch.inference_mode()
    def _make(self, make: Map) -> tuple[np.ndarray, float]:
        parts, seconds, timed = [], 0.0, 0
        for k, (z, y, indices) in enumerate(self._batches()):
            start = time.perf_counter()
            images = to_uint8(make(z, y, indices)).cpu().numpy()
            parts.append(images)
            if k >= _WARM_UP:
                seconds += time.perf_counter() - start
                timed += len(images)
        return np.concatenate(parts), seconds / max(1, timed)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor, np.ndarray]]:
        section, base = self.config.evaluate, self.config.base_res
        for start in range(0, len(self.labels), section.batch):
            indices = np.arange(start, min(start + section.batch, len(self.labels)))
            z = torch.from_numpy(standard_normal(section.seed, indices, (3, base, base)))
            z = z.to(self.device).contiguous(memory_format=torch.channels_last)
            yield z, torch.from_numpy(self.labels[indices]).to(self.device), indices

    def score(self, entry: Entry, seen: Observed) -> list[Row]:
        """One row a value."""
        n, res = len(seen.images), entry.resolution
        artifact = artifacts.open_artifact(
            self.paths.reference(res), "reference", {"name": self.config.name, "resolution": res}
        )
        reference = from_artifact(artifact, self.config.evaluate.neighbours)
        real, labels = self._real(res, reference)
        values = self._distances(seen.images, self.labels, reference)
        ratio = high_frequency_energy(seen.images) / max(high_frequency_energy(real), 1e-12)
        batch = self.config.evaluate.batch
        values |= {
            "high_frequency": (f"high_frequency_ratio_{size(n)}", ratio),
            "seconds_per_image": (f"seconds_per_image_b{batch}", seen.seconds),
            "parameters": ("parameters", float(entry.parameters)),
        }
        if seen.below is not None:
            moved = drift(seen.images, seen.below)
            values |= {"drift": (f"drift_px_{size(n)}", float(moved.pixels.mean())),
                       "drift_mse": (f"drift_mse_{size(n)}", float(moved.mse.mean()))}  # fmt: skip
        facts = {"resolution": res, "n": n, "seed": self.config.evaluate.seed,
                 "reference": reference.fingerprint,
                 "reference_n": reference.n}  # fmt: skip
        rows = _rows(values, facts | {"generator": entry.name, "nfe": entry.nfe})
        if entry.name == "grown":  # what lost detail is held against
            floor = self._distances(real, labels, reference)
            rows += _rows(floor, facts | {"generator": "real", "n": len(real), "seed": None})
        return rows

    def _distances(
        self, images: np.ndarray, labels: np.ndarray, reference: Reference
    ) -> dict[str, tuple[str, float]]:
        held = _Held(images)
        found = collect(self.extractor, held, np.arange(len(images)), wanted(METRICS))
        sample = Sample(self.extractor.name, found, labels)
        rows = score(sample, reference, METRICS, Settings(self.config.evaluate.neighbours))
        return {row["metric"]: (row["protocol"], row["value"]) for row in rows}

    def _real(self, resolution: int, reference: Reference) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of the split that the reference has not seen."""
        expect = {"name": self.config.name, "resolution": resolution}
        data = artifacts.open_artifact(self.paths.data(resolution), "images", expect)
        split = "train" if reference.card["split"] == "test" else "test"
        labels = data.array(f"{split}_labels")
        kept = subset(len(labels), self.config.studies.samples)
        return np.asarray(open_images(data, split)[kept]), np.asarray(labels[kept])


class Curves:
    """Seconds, compute and stability of every training step of a variant, from its curves."""

    def __init__(self, config: VariantConfig, flops: dict[str, float]) -> None:
        self.base, self.flops = config.base_res, flops
        paths = Paths(config)
        self.curves = {stage: _history(paths.history(stage)) for stage in self.flops}

    def _resolution(self, stage: str) -> int:
        return int(stage.rpartition("-")[2]) if "-" in stage else self.base

    def up_to(self, resolution: int) -> Row:
        """Images, FLOPs and seconds of all training of the variant up to a resolution."""
        stages = [s for s in self.flops if self._resolution(s) <= resolution]
        last = [self.curves[s][-1] for s in stages]
        if not last:
            return {}
        return {
            "images_seen": int(sum(row["images"] for row in last)),
            "train_flops": sum(self.flops[s] for s in stages),
            "train_seconds": float(sum(row["seconds"] for row in last)),
        }

    def rows(self) -> list[Row]:
        """What each stage took by itself, and how stable growth was."""
        found = []
        for stage, curve in self.curves.items():
            kind, facts = stage.partition("-")[0], {"resolution": self._resolution(stage)}
            values = {
                "stage_flops": (f"stage_flops_{kind}", self.flops[stage]),
                "stage_seconds": (f"stage_seconds_{kind}", float(curve[-1]["seconds"])),
            }
            if kind == "grow":
                values |= {"gradient_spread": ("gradient_spread", gradient_spread(curve)),
                           "logit_gap": ("logit_gap", logit_gap(curve))}  # fmt: skip
            found += _rows(values, facts | {"n": int(curve[-1]["images"])})
        return found


def _rows(values: Mapping[str, tuple[str, float]], facts: Row) -> list[Row]:
    return [
        facts | {"metric": metric, "protocol": name, "value": float(value)}
        for metric, (name, value) in values.items()
    ]


def _latent_rows(config: VariantConfig, variant: Variant) -> list[Row]:
    """Round-trip errors and normality of the latents that the variant made."""
    if not {"invert", "pair_randomly"} & set(variant.steps):
        return []
    identity = {"name": config.name, "base_res": config.base_res}
    latents = artifacts.open_artifact(Paths(config).latents, "latents", identity)
    card, stored = latents.card(), open_rows(latents, "latents")
    z = stored[:_LATENTS].astype(np.float32) * card["to_normalised"]
    values = {f"latent_{k}": (f"latent_{k}", v)
              for k, v in dataclasses.asdict(normality(z)).items()}  # fmt: skip
    facts = {"resolution": config.base_res, "nfe": card["nfe"]}
    rows = _rows(values, facts | {"n": len(z)})
    if card["round_trip_mse"] is not None:
        errors = round_trip_errors(config)
        rows += _rows(errors, facts | {"n": card["round_trip_images"]})
    return rows


def _history(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def _cost_rows(
    config: VariantConfig,
    variant: Variant,
    classes: int,
    counted: dict[str, float],
    device: torch.device,
) -> list[Row]:
    """Training compute and sampling cost of the steps that the variant only counts."""
    if not variant.counts:
        return []
    rows = []
    for stage, flops in counted.items():
        kind, _, at = stage.partition("-")
        values = {"stage_flops": (f"stage_flops_{kind}", flops)}
        rows += _rows(values, {"resolution": int(at or config.base_res), "n": 1})
    for name, resolution, evaluations, costs in sampling_costs(
        config, variant.counts, classes, device
    ):
        facts = {"generator": name, "resolution": resolution, "nfe": evaluations}
        rows += _rows(costs, facts | {"n": config.evaluate.batch})
    return rows


def _failures(rows: list[Row], resolution: int) -> list[str]:
    """The signatures of failure that growth to a resolution shows."""
    at = {(r.get("generator", "none"), r["metric"]): r["value"]
          for r in rows if r["resolution"] == resolution}  # fmt: skip
    return signatures(
        energy_ratio=at["grown", "high_frequency"],
        recall_ratio=at["grown", "recall"] / max(at["real", "recall"], 1e-9),
        gradient_spread=at["none", "gradient_spread"],
        logit_gap=at["none", "logit_gap"],
    )
