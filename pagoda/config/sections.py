"""The sections of ``params.yaml``: every key with its documentation and the values it allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pagoda.data import registry
from pagoda.errors import PagodaError
from pagoda.fields import Check, opt
from pagoda.training.method import ByMethod
from pagoda.training.settings import OptimConfig

NO_WEIGHTS = "weights/none"
"""The folder that names no weights. It is there, as DVC wants of every dependency, and empty."""

_MOST_IMAGES = 1 << 40


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are cut."""

    space: str = opt(
        "what the diffusion and the generators model: images, or an autoencoder's codes of them; "
        "resolutions are the images' in both",
        default="pixel", choices=("pixel", "latent"),
    )  # fmt: skip
    source: str = opt("kind of source: the name of a file of pagoda/data/sources")
    path: str | None = opt(
        "file or folder of the source; null for embedded and for hub sets; a relative one that is "
        "not here is looked for in the project's root"
    )
    hub: str | None = opt(
        "name of a hub set: a torchvision class, a Hugging Face id, or a local folder or parquet"
    )
    render_res: int = opt("resolution the embedded set is rendered at", ge=8, power_of_two=True)
    variety: float = opt(
        "how much size, place, tilt, colours and light vary in the embedded set",
        ge=0,
        le=1,
    )
    train_images: int | None = opt(
        "first training images, classes in turn; null = all", ge=1, le=_MOST_IMAGES
    )
    test_images: int | None = opt(
        "first held-out images, classes in turn; null = all", ge=1, le=_MOST_IMAGES
    )
    test_share: float | None = opt(
        "fraction of each class to hold out where the source has no test split; null = it must",
        gt=0,
        lt=1,
    )
    num_classes: int = opt("number of classes; 1 makes one class of all folders", ge=1)
    exif: bool = opt("turn images as their EXIF orientation says; ADM and EDM do not")
    recipe: str = opt("downsampling recipe", choices=("adm", "lanczos", "box"))
    pad_to: int | None = opt("zero-pad smaller images to this size first; null = never", ge=1)
    encode_from: int | None = opt(
        "resolutions from this one on are stored as lossless WebP, half the size; null = none", ge=1
    )

    def checks(self, at: str) -> Iterator[Check]:
        """What a source needs to be found."""
        known = registry.names()
        yield self.source in known, f"{at}source", self.source, f"one of {', '.join(known)}"
        source = registry.find(self.source)
        yield (self.num_classes == (source.classes or self.num_classes), f"{at}num_classes",
               self.num_classes, f"{source.classes} for the {self.source} set")  # fmt: skip
        needed = {"path": f"the path of a {self.source} source, e.g. -S {at}path=FILE",
                  "hub": f"the name of the set for source {self.source}"}  # fmt: skip
        for key, allowed in needed.items():
            there = source.needs != key or getattr(self, key) is not None
            yield there, f"{at}{key}", getattr(self, key), allowed


@dataclass(frozen=True)
class FeaturesConfig:
    """The embedded feature network: a classifier used for evaluation only."""

    imported: str = opt(
        "folder of a classifier, the artifact features of another run, to measure with instead of "
        "training one; weights/none: train"
    )
    seed: int = opt("its own seed, so that distances compare across runs", ge=0)
    images: int = opt("images seen in training", ge=1)
    batch: int = opt("images a step", ge=2)
    lr: float = opt("AdamW learning rate", gt=0)
    channels: int = opt("width of the first block", ge=4)
    dim: int = opt("feature dimension", ge=2)

    @property
    def optim(self) -> OptimConfig:
        """What trains it."""
        from pagoda.methods.classifier import optim

        return optim(self.images, self.batch, self.lr)

    def checks(self, at: str) -> Iterator[Check]:
        """Whole steps."""
        return self.optim.checks(at)


@dataclass(frozen=True)
class ReferenceConfig:
    """Statistics of real images that generated ones are compared with."""

    imported: str = opt(
        "folder reference of another run, of the same images and networks, to take what is in it "
        "of instead of measuring them; weights/none: measure"
    )
    split: str = opt("split the statistics describe", choices=("train", "test"))
    manifold_images: int = opt("real images kept for precision and recall", ge=4)
    extractors: list[str] = opt(
        "feature networks of references and results: classifier, and after it others as "
        "'pagoda evaluate --extractor' takes them, e.g. inception:clean, efficientnet:lite1"
    )
    weights: str | None = opt("folder of their published weights; null: the usual places")
    code: str | None = opt("checkout of DINOv2's repository; null: the cache of torch.hub")
    download: bool = opt("fetch weights and code that are not on this machine")

    def checks(self, at: str) -> Iterator[Check]:
        """The classifier first; each name once."""
        first, *others = self.extractors or [""]
        families = {text.partition(":")[0] for text in others}
        yield (
            first == "classifier" and "classifier" not in families
            and len(set(others)) == len(others),
            f"{at}extractors", self.extractors,
            "a list of different names, classifier first, then inception, dinov2, efficientnet:... "
            "or custom:..."
        )  # fmt: skip
        for text in others:
            why = _unknown(text)
            yield not why, f"{at}extractors", text, f"the name of a network: {why}"


def _unknown(extractor: str) -> str:
    """Why a name is no feature network's; empty if it is one's."""
    from pagoda.evaluation.features.base import find_family  # imports torch

    try:
        family, name = find_family(extractor)
        family.check(name)
    except PagodaError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class InvertConfig:
    """Stage 2a: real images to latents along the probability-flow ODE."""

    images: int | None = opt("training images to invert, in order; null = all", ge=1)
    flips: bool = opt("also invert each image's mirror image")
    steps: int = opt("noise levels of the grid", ge=2)
    solver: str = opt("ODE solver", choices=("euler", "heun"))
    noise: float = opt("noise added to the clean image before the inversion starts", ge=0)
    clamp: bool = opt("clamp the denoiser's output to [-1, 1]")
    guidance: float = opt(
        "classifier-free guidance w of the teacher that is inverted and distilled, w D(x; s, c) + "
        "(1 - w) D(x; s); 1 = none; any other needs teacher.label_dropout above 0",
        ge=0,
    )
    guidance_max: float | None = opt(
        "largest guidance weight: every image and mirror image is inverted under its own, uniform "
        "from invert.guidance to it (w = 1 is none), for generators that are told the weight "
        "(distill.method: guided); null = all under invert.guidance",
        default=None, ge=0,
    )  # fmt: skip
    batch: int = opt("images a call of the network", ge=1)
    precision: str = opt("autocast precision of the network", choices=("fp32", "bf16", "fp16"))
    units: str = opt(
        "what is stored: x(sigma_max) / sigma_max, of deviation 1, or x(sigma_max) itself",
        choices=("normalised", "raw"),
    )
    dtype: str = opt("type that latents are stored in", choices=("fp32", "fp16"))
    shard: int = opt("latents a file; a smaller set is one file", ge=1)
    round_trip_images: int = opt("images whose round-trip error is measured", ge=1)

    @property
    def guided(self) -> bool:
        """Whether any weight differs from 1, which is none."""
        return self.costliest != 1

    @property
    def weight_range(self) -> tuple[float, float]:
        """Smallest and largest weight."""
        most = self.guidance if self.guidance_max is None else self.guidance_max
        return self.guidance, most

    @property
    def costliest(self) -> float:
        """A weight that takes as many network evaluations as any: 1 takes half of the others'."""
        low, high = self.weight_range
        return high if low == 1 else low

    def checks(self, at: str) -> Iterator[Check]:
        """The weights have two ends."""
        most = self.guidance_max
        yield (most is None or most >= self.guidance, f"{at}guidance_max", most,
               f"null, or at least {at}guidance = {self.guidance:g}")  # fmt: skip


@dataclass(frozen=True)
class DistillConfig(ByMethod):
    """Stage 2b: the one-step generator at the base resolution."""

    imported: str = opt(
        "folder of weights, as pagoda import makes it, to take instead of training; weights/none: "
        "train"
    )
    pair_share: float = opt(
        "fraction of the inverted latents that the regression loss uses, the first of each class",
        gt=0, le=1,
    )  # fmt: skip
    output: str = opt(
        "what the generator returns: the network's raw output or the denoiser D(z; sigma_max)",
        choices=("raw", "denoiser"),
    )
    teacher_steps: int = opt("grid of the teacher's samples for noise-to-data", ge=2)
    dropout: float = opt("dropout in residual blocks of the generators", ge=0, lt=1)


@dataclass(frozen=True)
class GrowConfig(ByMethod):
    """Stage 3: one doubling of the resolution."""

    imported: str = opt(
        "folder that holds a folder of weights a resolution (128, 256 ...), to take instead of "
        "training; weights/none: train"
    )
    channels: int = opt("width of the new blocks", ge=8)
    half_width_from: int | None = opt(
        "new blocks of this resolution and higher have half the width; null = none", ge=8
    )
    trainable: str = opt(
        "what trains beside the new blocks: the base from a block on, as in the official code, or "
        "the previous generator's blocks of its highest resolution, in the paper's words",
        choices=("from_block", "highest"),
    )
    blocks: int = opt("residual blocks after the up-sampling block", ge=0)
    trainable_base_blocks: int = opt("topmost blocks of the frozen part that keep training", ge=0)
    train_lower_levels: bool = opt("blocks of earlier doublings keep training")


@dataclass(frozen=True)
class ReportConfig:
    """What reports show."""

    real_images: bool = opt("show training images beside samples; false where terms forbid it")
    settings_tried: int | None = opt(
        "settings of the recipe that were tried before this one was chosen; null = not told",
        default=None, ge=1,
    )  # fmt: skip


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluation of every generator at every resolution."""

    seed: int = opt("seed of the latents", ge=0)
    samples: int = opt("images a generator", ge=16)
    batch: int = opt("images a call of the network", ge=1)
    teacher_steps: int = opt("Heun grid of the teacher's samples", ge=2)
    neighbours: int = opt("k of precision and recall", ge=1)
    score_splits: int = opt("splits of the classifier score", ge=1)
    grid_per_class: int = opt("samples a class kept for the sample grids", ge=1)
    guidance: float = opt(
        "guidance weight of the teacher's samples and of generators that are told one; 1 = none",
        default=1.0, ge=0,
    )  # fmt: skip


@dataclass(frozen=True)
class CascadeConfig:
    """Super-resolution diffusion, the cascade that growth is compared with (CDM)."""

    channels: int = opt("width at the highest resolution", ge=8)
    batch: int = opt("images a training step of each super-resolution model", ge=1)
    steps: int = opt("Heun grid of each super-resolution model", ge=2)
    noise_max: float = opt("largest noise added to the condition in training", gt=0)
    noise: float = opt("noise added to the condition when sampling", ge=0)


@dataclass(frozen=True)
class EditConfig:
    """Edits of held-out images with the main pipeline's generators."""

    images: int = opt("held-out images, others for each seed", ge=2)
    mask: str = opt("what inpainting hides", choices=("centre", "half", "random"))
    steps: int = opt("of a search for a latent", ge=1)
    lr: float = opt("of a search", gt=0)
    restarts: int = opt("searches an inpainted image", ge=1)
    several: int = opt("images that get several answers; 0: none", ge=0)
    answers: int = opt("answers to each of them", ge=2)
    walk_steps: int = opt("of Langevin dynamics, after the search", ge=1)
    walk_step: float = opt("size of such a step", gt=0)
    walk_sigma: float = opt("noise that observations are believed to have, pixels in [-1, 1]", gt=0)
    posterior_steps: int = opt("noise levels of the teacher's posterior sampling", ge=2)
    posterior_scale: float = opt("its zeta", gt=0)
    frames: int = opt("places along each path between two latents", ge=3)


@dataclass(frozen=True)
class StudySizeConfig:
    """How much of the profile's work the variants of a study do."""

    seeds: list[int] = opt("training seeds of a variant; a verdict needs three", ge=0)
    fraction: float = opt(
        "fraction of the profile's images that a variant trains on or inverts", gt=0, le=1
    )
    scale: float = opt(
        "images of a variant's training, times this: below 1 for a first look; a teacher's stay, "
        "whose share of the images a study may ask about", gt=0, le=1,
    )  # fmt: skip

    def checks(self, at: str) -> Iterator[Check]:
        """Seeds differ."""
        yield (bool(self.seeds) and len(set(self.seeds)) == len(self.seeds), f"{at}seeds",
               self.seeds, "a list of different seeds, none negative, at least one")  # fmt: skip


@dataclass(frozen=True)
class StudiesConfig:
    """The studies in ``experiments/``; each says which size it takes."""

    usual: StudySizeConfig = opt("size of the studies of one training stage")
    costly: StudySizeConfig = opt("size of the studies that train several networks a variant")
    whole: StudySizeConfig = opt(
        "size of the studies of the profile's whole length or its generators"
    )
    samples: int = opt("images a generator in their evaluation", ge=16)
    cascade: CascadeConfig = opt("the cascade that is trained as a baseline")
    edit: EditConfig = opt("edits")
