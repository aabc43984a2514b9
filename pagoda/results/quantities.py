"""What studies measure, in a reader's words: names, units and the table each belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda.results.measured import METRICS
from pagoda.results.studies import StudyRow

QUALITY, GROWTH, ROUND_TRIP, LATENTS, COST, STAGES, PARTS = (
    "quality", "growth", "round-trip", "latents", "cost", "stages", "parts",
)  # fmt: skip
GROUPS = {
    QUALITY: "distances and diversity",
    GROWTH: "growth checks",
    ROUND_TRIP: "round trip of the inversion",
    LATENTS: "inverted latents against the prior",
    COST: "training and sampling",
    STAGES: "training by stage",
    PARTS: "one step by part",
}
"""Tables of a study in their order, by the name of their files."""

OWN = frozenset({"student", "grown", "cascade", "none"})
"""Generators that are an arm's own: it has at most one of them a resolution."""


@dataclass(frozen=True)
class Quantity:
    """How a metric is shown.

    Attributes:
        group: the table it belongs to, one of :data:`GROUPS`.
        label: its name; an arrow says which way is better.
        unit: of the value shown; empty for a ratio, share, count or distance.
        scale: value shown over value measured.
    """

    group: str
    label: str
    unit: str = ""
    scale: float = 1.0


_IMAGE_MSE = "MSE, pixels in [-1, 1]"
_KNOWN = {
    "high_frequency": Quantity(QUALITY, "High-frequency energy (real: 1)"),
    "drift": Quantity(GROWTH, "Drift ↓", "px of the lower resolution"),
    "drift_mse": Quantity(GROWTH, "Change of the lower picture ↓", _IMAGE_MSE),
    "gradient_spread": Quantity(GROWTH, "Gradient norm, largest over median"),
    "logit_gap": Quantity(GROWTH, "Logits, real minus generated"),
    "round_trip": Quantity(ROUND_TRIP, "Error ↓", _IMAGE_MSE),
    "round_trip_hf": Quantity(ROUND_TRIP, "Error above half Nyquist ↓", "MSE of luminance"),
    "round_trip_hf_ratio": Quantity(ROUND_TRIP, "High-frequency energy kept (all: 1)"),
    "latent_mean": Quantity(LATENTS, "Mean (prior: 0)"),
    "latent_std": Quantity(LATENTS, "Standard deviation (1)"),
    "latent_skewness": Quantity(LATENTS, "Skewness (0)"),
    "latent_kurtosis": Quantity(LATENTS, "Kurtosis (3)"),
    "latent_ks_entries": Quantity(LATENTS, "KS distance of entries ↓"),
    "latent_ks_norms": Quantity(LATENTS, "KS distance of norms ↓"),
    "latent_neighbour_correlation": Quantity(LATENTS, "Correlation of neighbours (0)"),
    "parameters": Quantity(COST, "Parameters", "M", 1e-6),
    "seconds_per_image": Quantity(COST, "Time an image ↓", "ms", 1e3),
    "sampling_flops": Quantity(COST, "Compute an image ↓", "GFLOP", 1e-9),
    "train_flops": Quantity(COST, "Training compute of the arm ↓", "TFLOP", 1e-12),
    "images_seen": Quantity(COST, "Training images of the arm", "thousands", 1e-3),
    "train_seconds": Quantity(COST, "Training time of the arm ↓", "s"),
    "stage_flops": Quantity(STAGES, "Compute", "TFLOP", 1e-12),
    "stage_seconds": Quantity(STAGES, "Time", "s"),
    "part_seconds": Quantity(PARTS, "Time an image", "ms", 1e3),
    "part_flops": Quantity(PARTS, "Compute an image", "GFLOP", 1e-9),
}
_TOTALS = {"total_flops": "stage_flops", "total_seconds": "stage_seconds"}
ALL_STAGES = "all stages"
_ITEMS = ("teacher", "invert", "distill", "grow", "cascade", ALL_STAGES, "trunk")


_ORDER = [*METRICS, *_KNOWN]


def quantity(metric: str) -> Quantity:
    """How a metric is shown; one that is not known here is shown as it is, beside the distances."""
    known = _KNOWN.get(column_of(metric))
    return known or Quantity(QUALITY, METRICS.get(metric, metric.replace("_", " ").capitalize()))


def column_of(metric: str) -> str:
    """The metric whose column holds it: sums stand under their stages, parts under one head."""
    for part in ("part_seconds", "part_flops"):
        if metric.startswith(f"{part}_"):
            return part
    return _TOTALS.get(metric, metric)


def item_of(row: StudyRow) -> str:
    """The stage or part that a row is about; empty for all other metrics."""
    if row.metric in _TOTALS:
        return ALL_STAGES
    column = column_of(row.metric)
    if column in ("part_seconds", "part_flops"):
        return row.metric.removeprefix(f"{column}_")
    if column in ("stage_flops", "stage_seconds"):
        return row.protocol.removeprefix(f"{column}_")
    return ""


def order_of(metric: str) -> int:
    """Place of a column among others of its table."""
    return _ORDER.index(metric) if metric in _ORDER else len(_ORDER)


def item_order(item: str) -> tuple[int, str]:
    """Place of a stage or part among others of its table."""
    return (_ITEMS.index(item) if item in _ITEMS else len(_ITEMS), item)
