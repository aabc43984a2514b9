"""The sections of ``params.yaml``: every key with its documentation and the values it allows."""

from __future__ import annotations

from dataclasses import dataclass

from pagoda.config.fields import opt

NO_WEIGHTS = "weights/none"
"""The folder that names no weights. It is there, as DVC wants of every dependency, and empty."""


@dataclass(frozen=True)
class DataConfig:
    """Where images come from and how they are cut."""

    source: str = opt("kind of source: the name of a file of pagoda/data/sources")
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
    dropout: float = opt("dropout in residual blocks of the teacher", ge=0, lt=1)
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
    separate_update: bool = opt(
        "one optimiser step of the generator by the regression and one by the adversarial loss, as "
        "in the official scripts for 256 and 512; false = one by their sum"
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
    dropout: float = opt("dropout in residual blocks of the generators", ge=0, lt=1)


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
