"""What is measured, in a reader's words: names, units, and the table of a study it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pagoda.evaluation.metrics.base import labels
from pagoda.rows import Row

# In the order of a table's lines. The main generator is "student" at the base, "grown" above it.
GENERATORS = {
    "teacher": "Diffusion teacher",
    "student": "One-step student",
    "student_two_steps": "Student, two steps",
    "grown": "Grown generator",
    "ungrown": "Grown, new blocks untrained",
    "upsampled_base": "Student, bilinear upsampling",
    "upsampled_real": "Real images at the base, bilinear upsampling",
    "untrained_teacher_weights": "Teacher's weights in one step",
    "untrained": "Untrained generator",
    "decoder_as_wide": "Codes, decoder as wide as growth",
    "decoder_taesd": "Codes, TAESD's decoder",
    "decoder_stable_diffusion": "Codes, Stable Diffusion's decoder",
    "lcm": "LCM, its U-Net and decoder (Stable Diffusion 1.5)",
    "autoencoder": "Real images, held out, after the autoencoder (its floor)",
    "real": "Real images, held out (floor)",
}
DISTANCES = ("fd", "fid")
"""Metrics that are Fréchet distances of pooled features."""

REAL = frozenset({"real", "upsampled_real"})
"""Images that no generator made."""

OWN = frozenset({"student", "grown", "cascade", "none"})
"""Generators that are a variant's own: it has at most one of them a resolution."""

FULL_SIZE = frozenset({"imagenet", "official"})
"""Profiles of the paper's own data and networks."""

(QUALITY, RECONSTRUCTION, GROWTH, ROUND_TRIP, LATENTS, RESTORED, TRANSFERRED, PATHS, COST, SAMPLING,
 STAGES, PARTS) = (
    "quality", "reconstruction", "growth", "round-trip", "latents", "restored", "transferred",
    "paths", "cost", "sampling", "stages", "parts",
)  # fmt: skip
GROUPS = {
    QUALITY: "distances and diversity",
    RECONSTRUCTION: "the autoencoder",
    GROWTH: "growth checks",
    ROUND_TRIP: "round trip of the inversion",
    LATENTS: "inverted latents against the prior",
    RESTORED: "inpainting and super-resolution",
    TRANSFERRED: "class transfer",
    PATHS: "interpolation",
    COST: "training and sampling",
    SAMPLING: "sampling, of variants that train nothing",
    STAGES: "training by stage",
    PARTS: "one step by part",
}
"""Tables of a study in their order, by the name of their files."""

_STAGES = {
    "features": (0, "feature network (evaluation only)"),
    "autoencoder": (0, "autoencoder, whose codes are modelled"),
    "encode": (0, "codes of"),
    "clip": (0, "CLIP, which reads the captions"),
    "scorer": (0, "CLIP, which scores samples"),
    "caption": (0, "captions of"),
    "teacher": (1, "diffusion teacher"),
    "invert": (2, "inversion"),
    "distill": (2, "one-step student"),
    "grow": (3, "growth to"),
}
"""Stages of training: which of the paper's they are part of (0: of none), and what they make."""


@dataclass(frozen=True)
class Quantity:
    """How a metric is shown: an arrow in the label says which way is better."""

    label: str
    group: str = QUALITY
    unit: str = ""  # of the value shown; empty for a ratio, fraction, count or distance
    scale: float = 1.0  # value shown over value measured

    @property
    def measured_in(self) -> str:
        """Unit of the value measured."""
        return self.unit if self.scale == 1 else _MEASURED_IN[self.unit]


_MEASURED_IN = {
    "M": "", "MB": "bytes", "ms": "s", "GFLOP": "FLOP", "TFLOP": "FLOP", "thousands": "images",
}  # fmt: skip
_MSE = "MSE, pixels in [-1, 1]"
_OTHERS = {
    "caption": Quantity("Caption shown ↑"),
    "caption_by_chance": Quantity("Another's caption shown"),
    "clip_score": Quantity("CLIP score ↑"),
    "high_frequency": Quantity("High-frequency energy (real: 1)"),
    "psnr": Quantity("PSNR ↑", RECONSTRUCTION, "dB"),
    "ssim": Quantity("SSIM ↑", RECONSTRUCTION),
    "fd_reconstruction": Quantity("Distance to the originals ↓", RECONSTRUCTION),
    "feature_distance": Quantity("Feature distance to the originals ↓", RECONSTRUCTION),
    "drift": Quantity("Drift ↓", GROWTH, "px of the lower resolution"),
    "drift_mse": Quantity("Change of the lower picture ↓", GROWTH, _MSE),
    "gradient_spread": Quantity("Gradient norm, largest over median", GROWTH),
    "logit_gap": Quantity("Logits, real minus generated", GROWTH),
    "round_trip": Quantity("Error ↓", ROUND_TRIP, _MSE),
    "round_trip_hf": Quantity("Error above half Nyquist ↓", ROUND_TRIP, "MSE of luminance"),
    "round_trip_hf_ratio": Quantity("High-frequency energy kept (all: 1)", ROUND_TRIP),
    "latent_mean": Quantity("Mean (prior: 0)", LATENTS),
    "latent_std": Quantity("Standard deviation (1)", LATENTS),
    "latent_skewness": Quantity("Skewness (0)", LATENTS),
    "latent_kurtosis": Quantity("Kurtosis (3)", LATENTS),
    "latent_ks_entries": Quantity("KS distance of entries ↓", LATENTS),
    "latent_ks_norms": Quantity("KS distance of norms ↓", LATENTS),
    "latent_neighbour_correlation": Quantity("Correlation of neighbours (0)", LATENTS),
    "hole_psnr": Quantity("PSNR in the hole ↑", RESTORED, "dB"),
    "whole_psnr": Quantity("PSNR ↑", RESTORED, "dB"),
    "whole_ssim": Quantity("SSIM ↑", RESTORED),
    "hole_distance": Quantity("Feature distance, hole ↓", RESTORED),
    "whole_distance": Quantity("Feature distance ↓", RESTORED),
    "consistency": Quantity("|A(x) − y| ↓", RESTORED, "RMS, pixels in [-1, 1]"),
    "seam": Quantity("Jump at the seam (original: 0) ↓", RESTORED, "pixels in [-1, 1]"),
    "diversity": Quantity("Diversity of answers ↑", RESTORED),
    "best_hole_psnr": Quantity("PSNR in the hole, best answer ↑", RESTORED, "dB"),
    "target_rate": Quantity("In the target class ↑", TRANSFERRED),
    "source_rate": Quantity("In the source's class", TRANSFERRED),
    "similarity": Quantity("Similarity to the source ↑", TRANSFERRED, "cosine of features"),
    "kept_psnr": Quantity("PSNR to the source ↑", TRANSFERRED, "dB"),
    "cycle_error": Quantity("There and back ↓", TRANSFERRED, _MSE),
    "path_length": Quantity("Perceptual path length ↓", PATHS),
    "path_norm": Quantity("Norm at the middle over that of the ends (1)", PATHS),
    "path_accuracy": Quantity("Frames in the class ↑", PATHS),
    "parameters": Quantity("Parameters", COST, "M", 1e-6),
    "seconds_per_image": Quantity("Time an image ↓", COST, "ms", 1e3),
    "sampling_flops": Quantity("Compute an image ↓", COST, "GFLOP", 1e-9),
    "train_flops": Quantity("Training compute of the variant ↓", COST, "TFLOP", 1e-12),
    "images_seen": Quantity("Training images of the variant", COST, "thousands", 1e-3),
    "train_seconds": Quantity("Training time of the variant ↓", COST, "s"),
    "stage_flops": Quantity("Compute", STAGES, "TFLOP", 1e-12),
    "stage_seconds": Quantity("Time", STAGES, "s"),
    "held_networks": Quantity("Networks held", STAGES),
    "held_parameters": Quantity("Their parameters", STAGES, "M", 1e-6),
    "held_memory": Quantity("Memory of a step, counted", STAGES, "MB", 1e-6),
    "part_seconds": Quantity("Time an image", PARTS, "ms", 1e3),
    "part_flops": Quantity("Compute an image", PARTS, "GFLOP", 1e-9),
}
"""What is no metric of images: by name, in the order of a table's columns."""

TOTALS = {"stage_flops": "total_flops", "stage_seconds": "total_seconds"}
"""Sums over stages, by the metric of one stage."""

ALL_STAGES = "all stages"
_ITEMS = ("autoencoder", "encode", "teacher", "invert", "distill", "grow", "cascade", ALL_STAGES,
          "trunk")  # fmt: skip


@cache
def quantities() -> dict[str, Quantity]:
    """How each metric is shown, in the order of a table's columns: those of images first."""
    return {name: Quantity(label) for name, label in labels().items()} | _OTHERS


def quantity(metric: str) -> Quantity:
    """How a metric is shown; one that is not known here is shown as it is, beside the distances."""
    unknown = Quantity(metric.replace("_", " ").capitalize())
    return quantities().get(column_of(metric), unknown)


def metric_label(metric: str) -> str:
    """Head of a metric's column; its own name if it has no other."""
    return quantities().get(metric, Quantity(metric)).label


def in_a_sentence(metric: str) -> str:
    """A metric's label without its arrow."""
    return metric_label(metric).rstrip(" ↑↓")


def column_of(metric: str) -> str:
    """The metric whose column holds it: sums stand under their stages, parts under one head."""
    stem = "_".join(metric.split("_")[:2])
    if stem in ("part_seconds", "part_flops"):
        return stem
    return next((stage for stage, total in TOTALS.items() if total == metric), metric)


def item_of(row: Row) -> str:
    """The stage or part that a row is about; empty for all other metrics."""
    if row.metric in TOTALS.values():
        return ALL_STAGES
    column = column_of(row.metric)
    if column.startswith("part_"):
        return row.metric.removeprefix(f"{column}_")
    return row.protocol.removeprefix(f"{column}_") if quantity(column).group == STAGES else ""


def metric_order(metric: str) -> int:
    """Place of a column among others of its table."""
    places = list(quantities())
    return places.index(metric) if metric in places else len(places)


def item_order(item: str) -> tuple[int, str]:
    """Place of a stage or part among others of its table."""
    return (_ITEMS.index(item) if item in _ITEMS else len(_ITEMS), item)


def generator_label(name: str) -> str:
    """Reader's name of a generator."""
    return GENERATORS.get(name, name.replace("_", " ").capitalize())


def generator_within(name: str) -> str:
    """The same inside a sentence: its first letter small, unless it begins with an abbreviation."""
    label = generator_label(name)
    return label if label[:2].isupper() else label[:1].lower() + label[1:]


def generator_order(name: str) -> tuple[int, str]:
    """Place of a generator among others; unknown ones beside the real images."""
    order = list(GENERATORS)
    return order.index(name) if name in order else len(order) - 1, name


def stage_label(stage: str, *, numbered: bool = True) -> str:
    """Reader's name of a training stage: ``grow-16`` as ``Stage 3, growth to 16×16``.

    Args:
        stage: as its history is named.
        numbered: say which of the paper's stages it is part of.
    """
    kind, _, size = stage.partition("-")
    number, name = _STAGES.get(kind, (0, kind))
    name += f" {size}×{size}" if size else ""
    return f"Stage {number}, {name}" if number and numbered else name[0].upper() + name[1:]


def size_label(profile: str) -> str:
    """``full size`` or ``scaled down``, which every measured value is labelled with."""
    return "full size" if profile in FULL_SIZE else "scaled down"
