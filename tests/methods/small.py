"""Small methods to train, one case a kind of network and objective, and a training of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from pagoda.fields import build
from pagoda.methods.clip import CaptionedGiven
from pagoda.networks.autoencoder import AutoencoderSpec, conv_autoencoder
from pagoda.networks.classifier import FeatureNetwork
from pagoda.networks.clip import Clip, ClipSpec, Tokenizer, learn_tokenizer
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import generator_from_teacher, grow
from pagoda.networks.super_resolution import SuperResolver
from pagoda.networks.unet import UNetSpec
from pagoda.training import loop
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.draw import GlobalDraw
from pagoda.training.method import Given, Method, find_method, registered
from pagoda.training.settings import DiffusionConfig

CPU = torch.device("cpu")
TEXTS = ["a red ring", "a blue star", "an olive disc", "a pink square"]
STEPS, BATCH, CLASSES, IMAGES = 4, 7, 4, 20  # an odd batch: two processes share unequally
DIFFUSION = DiffusionConfig(0.5, 0.002, 80.0, 7.0, -1.2, 1.2)
OPTIM = {
    "images": STEPS * BATCH, "batch": BATCH, "lr": 1e-3, "weight_decay": 0.01, "warmup": 0.2,
    "decay": 0.5, "clip": 1.0, "ema": 0.9,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A method with the network it trains: denoiser, generator, grown, resolver, classifier,
    autoencoder or clip.
    """

    method: str
    network: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def side(self) -> int:
        """Side of the images."""
        return 16 if self.network in ("grown", "resolver", "classifier") else 8


ONE_STEP = {
    "prior_batch": 5, "discriminator.channels": 4, "discriminator.max_channels": 8,
    "discriminator.r1": 1.0, "discriminator.r1_every": 2, "discriminator.augment": True,
    "loss.adversarial": "hinge", "loss.weighting": "adaptive", "loss.weight": 0.3,
    "loss.feature_weight": 0.1, "loss.adversarial_ramp": 0.5,
}  # fmt: skip
AUTOENCODER = {
    "backbones": ["tf_efficientnet_lite0"], "weights": "random", "input_side": 32,
    "adversarial_start": 0.3, "discriminator_channels": 4, "latent_channels": 2,
}  # fmt: skip
CASES = {
    "teacher": Case("teacher", "denoiser", {"label_dropout": 0.4}),
    "one_step": Case("one_step", "generator", ONE_STEP),
    "one_step, grown": Case("one_step", "grown", ONE_STEP | {
        "loss.weighting": "fixed", "loss.adversarial": "non_saturating", "loss.fakes": "both",
    }),
    "one_step, separate": Case("one_step", "generator", ONE_STEP | {
        "loss.weighting": "fixed", "loss.separate_update": True,
    }),
    "one_step, encoder": Case("one_step", "grown", ONE_STEP | {
        "discriminator.kind": "encoder",
    }),
    "guided": Case("guided", "generator", ONE_STEP | {"loss.fakes": "both"}),
    "class_ratio": Case("class_ratio", "generator", {
        "normalise": True, "ratio.r1": 1.0, "ratio.r1_every": 2, "ratio.steps": 2,
    }),
    "class_ratio, grown": Case("class_ratio", "grown", {
        "ratio.init": "random", "ratio.spectral_norm": True, "curriculum": 0.5,
    }),
    "class_ratio, map": Case("class_ratio", "generator", {
        "start": "map", "mapping": 0.6, "ratio.init": "shuffled",
    }),
    "distribution_matching": Case("distribution_matching", "generator", {
        "divergence": "js", "normalise": True, "critic.steps": 2,
    }),
    "consistency": Case("consistency", "generator"),
    "consistency, distilled": Case("consistency", "generator", {"neighbours": "teacher"}),
    "cascade": Case("cascade", "resolver"),
    "classifier": Case("classifier", "classifier", {"optim.ema": 0.0}),
    "autoencoder": Case("autoencoder", "autoencoder", AUTOENCODER),
    "clip": Case("clip", "clip", {"width": 16, "layers": 1, "embed": 8}),
    "autoencoder, kl": Case("autoencoder", "kl autoencoder", AUTOENCODER | {"bottleneck": "kl"}),
}  # fmt: skip
_NAMED = {case.method for case in CASES.values()}
# In order: workers of one run must find the same tests at the same places.
CASES |= {name: Case(name, "generator") for name in sorted({*registered()} - _NAMED)}
"""Every registered method is here: the contract is tested on all of them."""


def pixels(resolution: int, n: int = IMAGES) -> np.ndarray:
    shape = (n, 3, resolution, resolution)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def denoiser(dropout: float = 0.0) -> Denoiser:
    torch.manual_seed(4)
    return _awake(Denoiser(UNetSpec(8, 8, (1, 2), 1, (4,), 8, dropout, CLASSES, 1.0), 0.5))


def _awake(network: Any) -> Any:
    """Layers that start at zero would hide the others' gradients."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return network


def network_of(kind: str, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(5)
    if kind == "denoiser":
        return denoiser(dropout)
    if kind == "classifier":
        return FeatureNetwork(CLASSES, 16, channels=4, dim=8, degradations=2)
    if kind == "clip":
        tokenizer = Tokenizer(learn_tokenizer(TEXTS, 300), 8)
        return Clip(ClipSpec(8, 4, 16, 1, 8, 8, tokenizer.size), tokenizer)
    if kind.endswith("autoencoder"):
        return conv_autoencoder(AutoencoderSpec(2, 2, 4, 1, kl=kind.startswith("kl")))
    if kind == "resolver":
        spec = UNetSpec(16, 8, (1, 2, 2), 1, (4,), 8, dropout, CLASSES, 1.0)
        return _awake(SuperResolver(spec, 0.5))
    generator = generator_from_teacher(
        denoiser(), sigma_max=80.0, output="denoiser", dropout=dropout
    )
    if kind == "grown":
        generator = grow(generator, channels=8, blocks=1)
        generator.freeze_base(1)
    return generator


def pairs(resolution: int, dtype: torch.dtype = torch.float32) -> PairBatches:
    rows = np.arange(16)
    return PairBatches(
        latents=np.random.default_rng(2).standard_normal((16, 3, 8, 8)).astype(np.float32),
        indices=rows // 2, flips=(rows % 2).astype(np.uint8), images=pixels(resolution),
        labels=rows // 2 % CLASSES, device=CPU, dtype=dtype,
        weights=np.linspace(1, 3, 16, dtype=np.float32), weight_range=(1.0, 3.0),
    )  # fmt: skip


def given(case: Case, dtype: torch.dtype = torch.float32, dropout: float = 0.0) -> Given:
    sides = [8, 16] if case.network == "resolver" else [case.side]
    images = ImageBatches(
        stores=[pixels(side) for side in sides], labels=np.arange(IMAGES) % CLASSES, device=CPU,
        dtype=dtype,
    )  # fmt: skip
    network = network_of(case.network, dropout).to(memory_format=torch.channels_last)
    if isinstance(network, Clip):
        texts = network.tokenizer(TEXTS)[0]
        own = pairs(case.side, dtype)
        return CaptionedGiven(network, images, CPU, 0, DIFFUSION, own, denoiser, texts=texts)
    return Given(
        network, images, CPU, 0, DIFFUSION, pairs(case.side, dtype), denoiser,
        lambda: pairs(case.side, dtype),
    )  # fmt: skip


def flat(brightness: float) -> ImageBatches:
    """Images of one brightness, of every class."""
    stores = [np.full((8, 3, 8, 8), round((brightness + 1) * 127.5), np.uint8)]
    return ImageBatches(stores=stores, labels=np.arange(8) % CLASSES, device=CPU)


def off(generator: nn.Module, brightness: float) -> float:
    """How far the mean colour of 64 samples is from a brightness, at most over the channels."""
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 3, 8, 8), np.float32))
    with torch.no_grad():
        made = generator(z, torch.arange(64) % CLASSES)
    return float((made.mean((0, 2, 3)) - brightness).abs().max())


def off_before_and_after(method: Any, brightness: float, steps: int) -> tuple[float, float]:
    """:func:`off` of a method's generator, and again after steps of equal rates."""
    before = off(method.generator, brightness)
    for i in range(steps):
        loop.run_step(method, GlobalDraw(CPU), i, i / steps)
    return before, off(method.generator, brightness)


def section(case: Case, /, **settings: Any) -> Any:
    """The method's section, read as from a file; dotted keys."""
    tree: dict[str, Any] = {}
    dotted = {f"optim.{k}": v for k, v in OPTIM.items()} | dict(case.settings) | settings
    for key, value in dotted.items():
        *path, last = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return build(find_method(case.method).Config, tree, "small")


def make(case: str | Case, dtype: torch.dtype = torch.float32, /, **settings: Any) -> Method:
    """A method with equal weights at every call; ``dropout`` is the network's."""
    case = CASES[case] if isinstance(case, str) else case
    own = given(case, dtype, settings.pop("dropout", 0.0))
    method = find_method(case.method)(section(case, **settings), own)
    if dtype == torch.float64:
        for module in (*method.players.values(), *method.modules.values()):
            module.double()
    return method


class Stopped(Exception):
    """Stands for a power cut."""


def go(
    method: Method, folder: Path, *, stop_after: int | None = None, run: str = "scratch",
    save_every_s: float = -1.0,
) -> Method:  # fmt: skip
    """Train from whatever ``folder`` holds; a power cut after ``stop_after``.

    ``run`` names the folder of the checkpoints; the curves of all go to one file.
    """
    optim, seen = method.config.optim, 0  # type: ignore[attr-defined]

    def advance(images: int) -> None:
        nonlocal seen
        seen += images
        if stop_after is not None and seen > stop_after * optim.batch:
            raise Stopped

    with contextlib.suppress(Stopped), mock.patch.object(loop, "SAVE_EVERY_S", save_every_s):
        loop.train(
            method, optim, name="toy", seed=3, device=CPU, folder=folder / run,
            curves=folder / "h.jsonl", advance=advance,
        )  # fmt: skip
    return method


def once(method: Method, i: int = 0, progress: float = 0.5, seed: int = 0) -> dict[str, float]:
    """One step; its statistics."""
    torch.manual_seed(seed)
    stats, facts = loop.run_step(method, GlobalDraw(CPU), i, progress)
    return {key: float(value) for key, value in (stats | facts).items()}


def state(method: Method) -> dict[str, Tensor]:
    modules: dict[str, nn.Module] = {**method.players, **method.modules}
    return {
        f"{name}.{key}": value.clone()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def assert_same(a: Method, b: Method) -> None:
    left, right = state(a), state(b)
    assert left.keys() == right.keys()
    assert not [k for k in left if not torch.equal(left[k], right[k])]


def rows(folder: Path) -> list[dict[str, float]]:
    """The curves without wall-clock times."""
    read = [json.loads(row) for row in (folder / "h.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read]
