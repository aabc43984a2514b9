"""params.yaml -> frozen, typed, validated dataclasses. The only reader of that file.

There are no defaults here: every number lives in ``params.yaml``, which ``experiments/`` composes.
A wrong key, type or value raises :class:`pagoda.errors.PagodaError` with one line that names the
key, the value, what is allowed and the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pagoda.errors import PagodaError

NO_WEIGHTS = "weights/none"
"""The folder that names no weights. It is there, as DVC wants of every dependency, and empty."""


def opt(
    doc: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] | None = None,
    power_of_two: bool = False,
) -> Any:
    """A dataclass field with its documentation and the values it allows."""
    rules = {"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices}
    return dataclasses.field(metadata={"doc": doc, "power_of_two": power_of_two, **rules})


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are cut."""

    source: str = opt(
        "kind of source",
        choices=("embedded", "folder", "zip", "tar", "npz", "imagenet", "torchvision", "hub"),
    )
    path: str | None = opt(
        "file or folder of the source; null for embedded and for hub sets; a relative one that is "
        "not here is looked for in the project's root"
    )
    hub: str | None = opt(
        "name of a hub set: a torchvision class, a Hugging Face id, or a local folder or parquet"
    )
    render_res: int = opt("resolution the embedded set is rendered at", ge=8, power_of_two=True)
    train_images: int | None = opt("first training images, classes in turn; null = all", ge=1)
    test_images: int | None = opt("first held-out images, classes in turn; null = all", ge=1)
    test_share: float | None = opt(
        "share of each class to hold out where the source has no test split; null = it must",
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


@dataclass(frozen=True)
class FeaturesConfig:
    """The embedded feature network: a classifier used for evaluation only."""

    seed: int = opt("its own seed, so that distances compare across runs", ge=0)
    images: int = opt("images seen in training", ge=1)
    batch: int = opt("images a step", ge=2)
    lr: float = opt("AdamW learning rate", gt=0)
    channels: int = opt("width of the first block", ge=4)
    dim: int = opt("feature dimension", ge=2)


@dataclass(frozen=True)
class ReferenceConfig:
    """Statistics of real images that generated ones are held against."""

    split: str = opt("split the statistics describe", choices=("train", "test"))
    manifold_images: int = opt("real images kept for precision and recall", ge=4)
    extractors: list[str] = opt(
        "feature networks of references and results: classifier, and after it others as "
        "'pagoda evaluate --extractor' takes them, e.g. inception:clean, dinov2:vitl14:edm2"
    )
    weights: str | None = opt("folder of their published weights; null: the usual places")
    code: str | None = opt("checkout of DINOv2's repository; null: the cache of torch.hub")
    download: bool = opt("fetch weights and code that are nowhere")


@dataclass(frozen=True)
class UNetConfig:
    """ADM-style U-Net. Levels halve the resolution until ``lowest_res``."""

    channels: int = opt("width at the highest resolution", ge=8)
    channel_mult: list[int] = opt("width multiplier a level, highest resolution first")
    lowest_res: int = opt("resolution of the innermost level", ge=1, power_of_two=True)
    blocks: int = opt("residual blocks a level", ge=1)
    attention: list[int] = opt("resolutions with self-attention")
    head_channels: int = opt("channels a head of attention", ge=1)
    dropout: float = opt("dropout in residual blocks", ge=0, lt=1)
    time_scale: float = opt("the sinusoidal embedding sees time_scale x c_noise", gt=0)
    min_group: int = opt("fewest channels a group of normalisation: EDM 4, ADM and PaGoDA 1", ge=1)


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and length of one training stage. Time is counted in images seen."""

    images: int = opt("images seen in training", ge=1)
    batch: int = opt("images a step", ge=1)
    lr: float = opt("peak learning rate", gt=0)
    beta1: float = opt("Adam beta 1", ge=0, lt=1)
    beta2: float = opt("Adam beta 2", ge=0, lt=1)
    weight_decay: float = opt("decoupled weight decay", ge=0)
    warmup: float = opt("share of training with a linear warm-up", ge=0, lt=1)
    decay: float = opt("share of training, at the end, over which the rate falls to 0", ge=0, le=1)
    clip: float | None = opt("largest gradient norm; null = no clipping", gt=0)
    ema: float = opt("decay of the weight average a step, ramped as (1+t)/(10+t)", ge=0, lt=1)
    optimizer: str = opt("optimiser", choices=("adamw", "radam"))
    precision: str = opt(
        "autocast precision of the networks; fp16, with gradient scaling, needs a GPU",
        choices=("fp32", "bf16", "fp16"),
    )
    micro_batch: int | None = opt(
        "images whose activations a process holds at once; null = its whole share of the batch. "
        "The result is the whole batch's",
        ge=1,
    )
    ema_profiles: list[float] = opt(
        "relative widths sigma_rel of averages by a power function that are kept beside the other; "
        "0.05 and 0.1 make any between by 'pagoda ema'"
    )
    ema_snapshots: int = opt("snapshots of each of ema_profiles over training", ge=1)
    compile: bool = opt("torch.compile of the networks; needs a C++ compiler, first steps are slow")


@dataclass(frozen=True)
class DiffusionConfig:
    """EDM noise law and grid (Karras et al. 2022, table 1)."""

    sigma_data: float = opt("standard deviation of the data", gt=0)
    sigma_min: float = opt("smallest noise level of the grid", gt=0)
    sigma_max: float = opt("largest noise level of the grid", gt=0)
    rho: float = opt("exponent of the grid", gt=0)
    p_mean: float = opt("mean of ln sigma in training")
    p_std: float = opt("standard deviation of ln sigma in training", gt=0)


@dataclass(frozen=True)
class TeacherConfig:
    """Stage 1: the diffusion teacher."""

    imported: str = opt(
        "folder of weights, as pagoda import makes it, to take instead of training; weights/none: "
        "train"
    )
    network: UNetConfig = opt("denoiser network")
    augment: float = opt(
        "probability of each of EDM's augmentations, for small data sets; 0 = mirror images only",
        ge=0, le=1,
    )  # fmt: skip
    label_dropout: float = opt(
        "probability that an image's class is not told in training, as invert.guidance needs",
        ge=0, lt=1,
    )  # fmt: skip
    optim: OptimConfig = opt("optimiser")


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
    batch: int = opt("images a call of the network", ge=1)
    precision: str = opt("autocast precision of the network", choices=("fp32", "bf16", "fp16"))
    units: str = opt(
        "what is stored: x(sigma_max) / sigma_max, of deviation 1, or x(sigma_max) itself",
        choices=("normalised", "raw"),
    )
    dtype: str = opt("type that latents are stored in", choices=("fp32", "fp16"))
    shard: int = opt("latents a file; a smaller set is one file", ge=1)
    round_trip_images: int = opt("images whose round-trip error is measured", ge=1)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Discriminator and how it is trained."""

    kind: str = opt(
        "conv: trained from scratch; projected: heads on frozen timm networks (StyleGAN-XL); "
        "encoder: heads on the teacher's frozen encoder",
        choices=("conv", "projected", "encoder"),
    )
    channels: int = opt("conv: width at the input resolution", ge=4)
    max_channels: int = opt("conv and encoder: largest width", ge=4)
    backbones: list[str] = opt("projected: timm networks")
    weights: str = opt("projected: pretrained, random, or the folder that holds the weights")
    class_embedding: str | None = opt(
        "projected: .npy file (classes, d) that the class embeddings start from; null = random"
    )
    sigma: float = opt("encoder: noise level that the teacher's encoder is told", gt=0)
    optimizer: str = opt("optimiser", choices=("adamw", "radam"))
    lr: float = opt("learning rate", gt=0)
    beta1: float = opt("Adam beta 1", ge=0, lt=1)
    beta2: float = opt("Adam beta 2", ge=0, lt=1)
    r1: float = opt("weight gamma of the R1 penalty; 0 = none", ge=0)
    r1_every: int = opt("steps between R1 penalties", ge=1)
    augment: bool = opt("DiffAugment on what the discriminator sees")


@dataclass(frozen=True)
class LossConfig:
    """The generator's objective: regression + lambda x adversarial (PaGoDA eq. 4)."""

    regression: str = opt(
        "reconstruction of real images from their latents (eq. 2) or noise-to-data "
        "distillation of the teacher's samples (eq. 1)",
        choices=("reconstruction", "noise_to_data", "none"),
    )
    distance: str = opt(
        "distance of the regression: mean square or absolute difference of pixels, LPIPS, or "
        "projected features of timm networks",
        choices=("l2", "l1", "lpips", "projected"),
    )
    backbones: list[str] = opt("projected: timm networks")
    weights: str = opt(
        "lpips and projected: pretrained, random, or the folder that holds the weights"
    )
    augment: bool = opt("lpips and projected: DiffAugment both images alike first")
    feature_weight: float = opt("weight of the distance of discriminator features", ge=0)
    adversarial: str = opt("adversarial loss", choices=("hinge", "non_saturating", "none"))
    fakes: str = opt(
        "images that the discriminator judges: from prior latents, reconstructions of real images, "
        "or both",
        choices=("prior", "reconstructions", "both"),
    )
    weighting: str = opt(
        "fixed lambda, or adaptive by the ratio of gradient norms or of their squares",
        choices=("fixed", "adaptive", "adaptive_squared"),
    )
    weight: float = opt("lambda, or the target ratio of gradients if adaptive", ge=0)
    weight_min: float = opt("smallest adaptive lambda", ge=0)
    weight_max: float = opt("largest adaptive lambda", ge=0)
    adversarial_start: float = opt("share of training before the adversarial loss", ge=0, lt=1)
    adversarial_ramp: float = opt("share of training over which lambda then rises", ge=0, le=1)


@dataclass(frozen=True)
class DistillConfig:
    """Stage 2b: the one-step generator at the base resolution."""

    imported: str = opt(
        "folder of weights, as pagoda import makes it, to take instead of training; weights/none: "
        "train"
    )
    optim: OptimConfig = opt("optimiser")
    loss: LossConfig = opt("objective")
    discriminator: DiscriminatorConfig = opt("discriminator")
    prior_batch: int = opt("prior latents a step, for the adversarial loss", ge=1)
    pair_share: float = opt(
        "share of the inverted latents that the regression loss uses, the first of each class",
        gt=0, le=1,
    )  # fmt: skip
    output: str = opt(
        "what the generator returns: the network's raw output or the denoiser D(z; sigma_max)",
        choices=("raw", "denoiser"),
    )
    teacher_steps: int = opt("grid of the teacher's samples for noise-to-data", ge=2)


@dataclass(frozen=True)
class GrowConfig:
    """Stage 3: one doubling of the resolution."""

    imported: str = opt(
        "folder that holds a folder of weights a resolution (128, 256 ...), to take instead of "
        "training; weights/none: train"
    )
    optim: OptimConfig = opt("optimiser")
    loss: LossConfig = opt("objective")
    discriminator: DiscriminatorConfig = opt("discriminator")
    prior_batch: int = opt("prior latents a step, for the adversarial loss", ge=1)
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


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluation of every generator at every resolution."""

    seed: int = opt("seed of the latents", ge=0)
    samples: int = opt("images a generator", ge=16)
    batch: int = opt("images a call of the network", ge=1)
    teacher_steps: int = opt("Heun grid of the teacher's samples", ge=2)
    neighbours: int = opt("k of precision and recall", ge=1)
    score_splits: int = opt("splits of the classifier score", ge=1)
    grid_per_class: int = opt("samples a class kept for the sample sheets", ge=1)


@dataclass(frozen=True)
class CascadeConfig:
    """Super-resolution diffusion, the cascade that growth is held against (CDM)."""

    channels: int = opt("width at the highest resolution", ge=8)
    steps: int = opt("Heun grid of each super-resolution model", ge=2)
    noise_max: float = opt("largest noise added to the condition in training", gt=0)
    noise: float = opt("noise added to the condition when sampling", ge=0)


@dataclass(frozen=True)
class StudySizeConfig:
    """How much of the profile's work the arms of a study do."""

    seeds: list[int] = opt("training seeds of an arm; a verdict needs three")
    share: float = opt("share of the profile's training images that an arm sees", gt=0, le=1)


@dataclass(frozen=True)
class StudiesConfig:
    """The studies in ``experiments/``; each says which size it takes."""

    usual: StudySizeConfig = opt("size of the studies of one training stage")
    costly: StudySizeConfig = opt("size of the studies that train several networks an arm")
    samples: int = opt("images a generator in their evaluation", ge=16)
    cascade: CascadeConfig = opt("the cascade that is trained as a baseline")


@dataclass(frozen=True)
class Config:
    """A whole experiment."""

    name: str = opt("profile name; outputs live under runs/<name>/")
    seed: int = opt("seed of everything but the feature network", ge=0)
    base_res: int = opt("resolution of the teacher", ge=4, power_of_two=True)
    target_res: int = opt("resolution of the last generator", ge=4, power_of_two=True)
    resolutions: list[int] = opt("derived: base_res, doubled up to target_res")
    growth: dict[str, dict[str, int]] = opt("derived: one doubling an entry")
    data: DataConfig = opt("data")
    features: FeaturesConfig = opt("embedded feature network")
    reference: ReferenceConfig = opt("reference statistics")
    diffusion: DiffusionConfig = opt("noise law and grid")
    teacher: TeacherConfig = opt("stage 1")
    invert: InvertConfig = opt("stage 2, inversion")
    distill: DistillConfig = opt("stage 2, distillation")
    grow: GrowConfig = opt("stage 3")
    evaluate: EvaluateConfig = opt("evaluation")
    report: ReportConfig = opt("report")
    studies: StudiesConfig = opt("studies")


@dataclass(frozen=True)
class ArmConfig(Config):
    """One arm of a study: an experiment some of whose artifacts live elsewhere.

    Attributes:
        places: folders that replace those of the main pipeline, by artifact: ``teacher``,
            ``latents``, ``gen/<resolution>``, ``evaluate/<resolution>``, ``history``.
    """

    places: Mapping[str, str] = dataclasses.field(default_factory=dict)


def load(path: str | Path = "params.yaml") -> Config:
    """Read and check ``params.yaml``.

    Raises:
        PagodaError: one line naming the key, its value, what is allowed, and the file.
    """
    import yaml

    path = Path(path)
    if not path.is_file():
        raise PagodaError(f"no {path} here; run pagoda from the folder that holds params.yaml")
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 1}" if where else ""
        raise PagodaError(f"{path}{line} is not valid YAML; mend it and try again") from error
    return parse(tree, str(path))


def parse(tree: Any, where: str = "params.yaml") -> Config:
    """Check a plain tree of dicts and lists and turn it into a :class:`Config`."""
    config = _build(Config, tree, "", where)
    _check_relations(config, where)
    return config


def _build(cls: type, tree: Any, prefix: str, where: str) -> Any:
    if not isinstance(tree, Mapping):
        raise _bad(prefix or "the file", tree, "a mapping of keys", where)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in tree:
        if key not in fields:
            known = ", ".join(sorted(fields))
            raise PagodaError(f"{where}: unknown key {prefix}{key}; known here: {known}")
    values = {}
    for name, spec in fields.items():
        if name not in tree:
            raise PagodaError(f"{where}: missing key {prefix}{name} ({spec.metadata['doc']})")
        values[name] = _value(hints[name], tree[name], f"{prefix}{name}", spec.metadata, where)
    return cls(**values)


def _value(hint: Any, value: Any, key: str, rules: Mapping[str, Any], where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type, hint), value, f"{key}.", where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        if value is None:
            return None
        hint = next(a for a in args if a is not type(None))
        origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        if not isinstance(value, list):
            raise _bad(key, value, "a list", where)
        return [_value(args[0], v, f"{key}[{i}]", rules, where) for i, v in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _bad(key, value, "a mapping", where)
        return {str(k): _value(args[1], v, f"{key}.{k}", rules, where) for k, v in value.items()}
    return _scalar(hint, value, key, rules, where)


def _scalar(hint: type, value: Any, key: str, rules: Mapping[str, Any], where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 2e-3 as a string
        with contextlib.suppress(ValueError):
            value = float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
        raise _bad(key, value, names[hint], where)
    if (choices := rules.get("choices")) and value not in choices:
        raise _bad(key, value, "one of " + ", ".join(choices), where)
    if rules.get("power_of_two") and isinstance(value, int) and (value < 1 or value & (value - 1)):
        raise _bad(key, value, "a power of two", where)
    if hint is float and value != value:
        raise _bad(key, value, "a number", where)
    signs = {"ge": (">=", lambda a, b: a >= b), "gt": (">", lambda a, b: a > b),
             "le": ("<=", lambda a, b: a <= b), "lt": ("<", lambda a, b: a < b)}  # fmt: skip
    for rule, (sign, holds) in signs.items():
        if (bound := rules.get(rule)) is not None and not holds(value, bound):
            raise _bad(key, value, f"{sign} {bound:g}", where)
    return value


def _bad(key: str, value: Any, allowed: str, where: str) -> PagodaError:
    return PagodaError(f"{where}: {key} = {value!r}; it must be {allowed}")


def derive_resolutions(base_res: int, target_res: int) -> list[int]:
    """``base_res``, doubled until ``target_res``: 8, 32 -> [8, 16, 32].

    Raises:
        PagodaError: if either is no power of two or base_res exceeds target_res.
    """
    for key, value in (("base_res", base_res), ("target_res", target_res)):
        if not isinstance(value, int) or value < 4 or value & (value - 1):
            raise PagodaError(f"{key} = {value!r}; it must be a power of two of at least 4")
    if base_res > target_res:
        raise PagodaError(f"base_res = {base_res}; it must be at most target_res = {target_res}")
    return [base_res << i for i in range((target_res // base_res).bit_length())]


def derive_growth(base_res: int, target_res: int) -> dict[str, dict[str, int]]:
    """The growth steps, keyed by the resolution each reaches (as text: DVC needs text keys)."""
    ladder = derive_resolutions(base_res, target_res)
    return {str(b): {"from": a, "to": b} for a, b in itertools.pairwise(ladder)}


_Check = tuple[bool, str, Any, str]
"""Whether it holds, the key, its value, what is allowed."""


def _check_relations(c: Config, where: str) -> None:
    try:
        resolutions = derive_resolutions(c.base_res, c.target_res)
    except PagodaError as error:
        raise PagodaError(f"{where}: {error}") from None
    if c.resolutions != resolutions or c.growth != derive_growth(c.base_res, c.target_res):
        raise PagodaError(
            f"{where}: resolutions {c.resolutions} and growth {list(c.growth)} do not follow from "
            f"base_res {c.base_res} and target_res {c.target_res}; both lists are derived: run "
            f"'pagoda derive' to rewrite them, or 'dvc exp run -S base_res={c.base_res}'"
        )
    relations = (_data_checks, _network_checks, _training_checks, _study_checks)
    for holds, key, value, allowed in itertools.chain(*(relation(c) for relation in relations)):
        if not holds:
            raise _bad(key, value, allowed, where)


def _data_checks(c: Config) -> list[_Check]:
    d, extractors = c.data, c.reference.extractors
    families = {"classifier", "inception", "dinov2", "custom"}
    embedded, local = d.source == "embedded", d.source not in ("embedded", "torchvision", "hub")
    return [
        (not embedded or d.render_res >= c.target_res, "data.render_res", d.render_res,
         f"at least target_res = {c.target_res}"),
        (not embedded or d.num_classes == 10, "data.num_classes", d.num_classes,
         "10 for the embedded set"),
        (not local or d.path is not None, "data.path", d.path,
         f"the path of a {d.source} source, e.g. -S data.path=FILE"),
        (embedded or local or d.hub is not None, "data.hub", d.hub,
         f"the name of the set for source {d.source}"),
        (extractors[:1] == ["classifier"] and len(set(extractors)) == len(extractors)
         and {text.partition(":")[0] for text in extractors} <= families
         and "classifier" not in {text.partition(":")[0] for text in extractors[1:]},
         "reference.extractors", extractors,
         "a list of different names, classifier first, then inception, dinov2 or custom:..."),
    ]  # fmt: skip


def _network_checks(c: Config) -> list[_Check]:
    net, law = c.teacher.network, c.diffusion
    levels = (c.base_res // net.lowest_res).bit_length()
    below_max = f"below diffusion.sigma_max = {law.sigma_max:g}"
    return [
        (law.sigma_min < law.sigma_max, "diffusion.sigma_min", law.sigma_min, below_max),
        (c.invert.noise < law.sigma_max, "invert.noise", c.invert.noise, below_max),
        (net.lowest_res <= c.base_res, "teacher.network.lowest_res", net.lowest_res,
         f"at most base_res = {c.base_res}"),
        (len(net.channel_mult) >= levels and all(m >= 1 for m in net.channel_mult),
         "teacher.network.channel_mult", net.channel_mult,
         f"{levels} or more whole numbers >= 1, a level each from base_res {c.base_res} down to "
         f"lowest_res {net.lowest_res}"),
    ]  # fmt: skip


def _training_checks(c: Config) -> list[_Check]:
    sections: dict[str, OptimConfig | FeaturesConfig] = {
        "teacher.optim": c.teacher.optim, "distill.optim": c.distill.optim,
        "grow.optim": c.grow.optim, "features": c.features,
    }  # fmt: skip
    checks: list[_Check] = [
        (s.images % s.batch == 0, f"{key}.batch", s.batch,
         f"a divisor of {key}.images = {s.images}")
        for key, s in sections.items()
    ]  # fmt: skip
    checks += [
        (all(0 < width < 0.28 for width in s.ema_profiles), f"{key}.ema_profiles", s.ema_profiles,
         "a list of relative widths above 0 and below 0.28")
        for key, s in sections.items() if isinstance(s, OptimConfig)
    ]  # fmt: skip
    for stage, loss in (("distill", c.distill.loss), ("grow", c.grow.loss)):
        checks += [
            (loss.regression != "none" or loss.adversarial != "none", f"{stage}.loss.regression",
             loss.regression, "something other than none while adversarial is none"),
            (loss.regression != "none" or loss.fakes == "prior", f"{stage}.loss.fakes", loss.fakes,
             "prior while there is no regression, and so no reconstructions"),
            (loss.weight_min <= loss.weight_max, f"{stage}.loss.weight_min", loss.weight_min,
             f"at most {stage}.loss.weight_max"),
        ]  # fmt: skip
    regression = c.grow.loss.regression
    allowed = "reconstruction or none: the teacher has no high-resolution samples"
    return [*checks, (regression != "noise_to_data", "grow.loss.regression", regression, allowed)]


def _study_checks(c: Config) -> list[_Check]:
    sizes = {"usual": c.studies.usual.seeds, "costly": c.studies.costly.seeds}
    return [
        (bool(seeds) and len(set(seeds)) == len(seeds) and min(seeds) >= 0,
         f"studies.{key}.seeds", seeds, "a list of different seeds, none negative, at least one")
        for key, seeds in sizes.items()
    ]  # fmt: skip
