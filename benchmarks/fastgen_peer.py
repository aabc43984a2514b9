"""NVlabs/FastGen's methods on our networks.

Its code is imported from a checkout that the user names and is no part of this repository
(Apache-2.0). Packages that it imports for videos, text and clouds need not be there.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from benchmarks.timing import revision
from pagoda.methods.mean_flow import average_velocity, build_second_time
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.generator import Generator

UNUSED = ("transformers", "wandb", "einops", "webdataset", "boto3", "botocore", "loguru", "imageio",
          "ftfy", "av", "pkg_resources")  # fmt: skip

Batch = tuple[Tensor, Tensor]
"""Images (n, 3, r, r) in [-1, 1] and classes (n,)."""


def without_unused() -> None:
    """Let FastGen be imported without the packages that none of its methods here uses."""
    sys.meta_path.append(_Nothing())


class _Nothing(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands for packages that are imported and not used."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in UNUSED:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> Any:
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__, module.__name__ = [], spec, spec.name
        return module

    def exec_module(self, module: Any) -> None:
        pass


@dataclass(frozen=True)
class Turn:
    """One of its methods, with its optimisers."""

    model: Any
    updates: int

    def __call__(self, batch: Batch) -> float:
        """Its ``Trainer.train_step``, once for each of the networks that take turns; the loss."""
        for i in reversed(range(self.updates)):  # the student's turn is i = 0
            data = {"real": batch[0], "condition": batch[1], "neg_condition": batch[1]}
            losses, _ = self.model.single_train_step(data, i)
            losses["total_loss"].backward()
            self.model.optimizers_schedulers_step(i)
            self.model.optimizers_zero_grad(i)
        return float(losses["total_loss"].detach())


class FastGen:
    """A checkout of NVlabs/FastGen.

    Raises:
        SystemExit: if the folder holds none.
    """

    def __init__(self, checkout: Path) -> None:
        if not (checkout / "fastgen" / "methods").is_dir():
            raise SystemExit(f"error: {checkout} is no checkout of github.com/NVlabs/FastGen")
        sys.path.insert(0, str(checkout))
        without_unused()
        self.checkout = checkout
        self.methods: Any = importlib.import_module("fastgen.methods")
        self._lazy: Any = importlib.import_module("fastgen.utils").LazyCall
        self._network: Any = importlib.import_module("fastgen.networks.network").FastGenNetwork

    def revision(self) -> str | None:
        """The commit of the checkout, None if it does not say."""
        return revision(self.checkout)

    def consistency(self, make: Callable[[], Denoiser], stage: int) -> Turn:
        """``CMModel``: consistency training at one stage of ECT's schedule."""
        turn = self._turn("cm", "CMModel", self._denoising(make), make().spec.resolution)
        turn.model.ratio = 1 - 2.0 ** -(stage + 1)
        return turn

    def matching(self, make: Callable[[], Denoiser]) -> Turn:
        """``DMD2Model`` without its discriminator: one update of the critic, one of the student."""
        own = {"gan_loss_weight_gen": 0.0, "student_update_freq": 2}
        return self._turn("dmd2", "DMD2Model", self._denoising(make), make().spec.resolution, own)

    def mean_flow(self, make: Callable[[], Generator]) -> Turn:
        """``MeanFlowModel`` with the adaptive l2 loss; a quarter of its times differ."""
        peer = self._network

        class Velocity(peer):  # type: ignore[misc, valid-type]
            """u(z, r, t) of our generator's network."""

            def __init__(self) -> None:
                super().__init__(net_pred_type="flow", schedule_type="rf")
                self.net = make()
                self.second = build_second_time(self.net, 0)

            def forward(
                self, x_t: Tensor, t: Tensor, condition: Tensor, r: Tensor, **_: Any
            ) -> Tensor:
                t, r = (at.to(x_t.dtype).clamp(1e-4, 0.987) for at in (t, r))
                return average_velocity(self.net, self.second, x_t, r, t, condition)

        turn = self._turn("mean_flow", "MeanFlowModel", Velocity, make().spec.resolution,
                          {"use_ema": False})  # fmt: skip
        loss, times = turn.model.config.loss_config, turn.model.config.sample_t_cfg
        loss.loss_type, loss.norm_method, loss.norm_const = "l2", "poly_0.75", 1e-3
        times.time_dist_type, times.r_sample_ratio = "logitnormal", 0.25
        times.train_p_mean, times.train_p_std, times.min_t, times.max_t = -0.4, 1.0, 0.001, 0.987
        return turn

    def _denoising(self, make: Callable[[], Denoiser]) -> type[nn.Module]:
        peer = self._network

        class Denoising(peer):  # type: ignore[misc, valid-type]
            """Our denoiser D(x, sigma, c)."""

            def __init__(self) -> None:
                super().__init__(net_pred_type="x0", schedule_type="edm")
                self.net = make()

            def forward(self, x_t: Tensor, t: Tensor, condition: Tensor, **_: Any) -> Tensor:
                denoised: Tensor = self.net(x_t, t.to(x_t.dtype), condition)
                return denoised

        return Denoising

    def _turn(
        self, file: str, name: str, network: type[nn.Module], side: int,
        own: dict[str, Any] | None = None,
    ) -> Turn:  # fmt: skip
        settings = importlib.import_module(f"fastgen.configs.methods.config_{file}").ModelConfig()
        settings.net = self._lazy(network)()
        settings.device, settings.input_shape = torch.device("cpu"), [3, side, side]
        for key, value in (own or {}).items():
            setattr(settings, key, value)
        for optimizer in ("net_optimizer", "fake_score_optimizer"):
            if hasattr(settings, optimizer):
                getattr(settings, optimizer).optim_type = "adamw"
        model = getattr(self.methods, name)(settings)
        model.on_train_begin()
        model.init_optimizers()
        return Turn(model, (own or {}).get("student_update_freq", 1))
