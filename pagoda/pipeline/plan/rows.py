"""What a plan says: a row a stage, and growth beside diffusion at every resolution."""

from __future__ import annotations

from dataclasses import dataclass, field

CARDS = {"H100": 989.0, "H200": 989.0, "A100": 312.0}
"""Dense bfloat16 tensor-core peaks in TFLOP/s, NVIDIA's data sheets (H100 and H200 SXM, A100)."""

THIS_MACHINE = "this machine"
"""Column of the hours that a probe predicts."""


@dataclass(frozen=True)
class Reached:
    """What a probe measured: FLOP/s by stage, on which device."""

    device: str
    flops: dict[str, float]


@dataclass(frozen=True)
class Stage:
    """One stage. Counts are of multiply-adds as two operations; bytes are what stays on disk.

    Attributes:
        stage: as ``dvc.yaml`` names it.
        parameters: of the network that the stage runs, None without one.
        trainable: those that train.
        judge_trainable: trained parameters of the discriminator.
        forward_flops: of one image through the network.
        flops: of the whole stage.
        precision: autocast precision.
        data_bytes: images or statistics.
        latent_bytes: latents.
        checkpoint_bytes: kept weights.
        scratch_bytes: the two checkpoints that a training stage keeps while it runs.
        hours: on one card, by card.
        imported: its weights are taken from elsewhere, so that nothing trains.
    """

    stage: str
    parameters: int | None = None
    trainable: int | None = None
    judge_trainable: int | None = None
    forward_flops: float | None = None
    flops: float = 0.0
    precision: str | None = None
    data_bytes: int = 0
    latent_bytes: int = 0
    checkpoint_bytes: int = 0
    scratch_bytes: int = 0
    hours: dict[str, float] = field(default_factory=dict)
    imported: bool = False


@dataclass(frozen=True)
class Direct:
    """Diffusion trained directly at a resolution, and growing to it.

    Attributes:
        resolution: of both.
        parameters: of the diffusion model: the teacher's design, levels added down to its lowest.
        training_flops: of one of its training images.
        times_base: the same over that of the base resolution.
        rule: what the paper's 4^n says of it.
        flops: of training it on as many images as the teacher.
        step_flops: of the growth step to this resolution; None at the base.
        reached_flops: of teacher, inversion, distillation and all growth up to here.
    """

    resolution: int
    parameters: int
    training_flops: float
    times_base: float
    rule: int
    flops: float
    step_flops: float | None
    reached_flops: float


@dataclass(frozen=True)
class Plan:
    """The plan of one experiment; ``pagoda plan --json`` prints it.

    ``probed_on`` and ``reached_tflops``, by stage, are those of ``--probe``. ``extractors`` are the
    feature networks that results are in, ``uncounted`` those whose operations are not known.
    """

    schema: int
    profile: str
    resolutions: list[int]
    train_images: int
    test_images: int
    pairs: int
    inversion_nfe: int
    utilisation: float
    peak_tflops: dict[str, float]
    stages: list[Stage]
    growth: list[Direct]
    probed_on: str | None = None
    reached_tflops: dict[str, float] = field(default_factory=dict)
    extractors: list[str] = field(default_factory=list)
    uncounted: list[str] = field(default_factory=list)
