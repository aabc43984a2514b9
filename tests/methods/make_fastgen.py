"""Writes the folder ``fixtures`` with NVlabs/FastGen's code, for test_fastgen.py.

    python -m tests.methods.make_fastgen FASTGEN

The argument is a git checkout of NVlabs/FastGen (Apache-2.0). Its methods are run as they are, on
the CPU and in float64, with networks of a few weights (:mod:`tests.methods.toy`) on images, noise
and noise levels that are kept beside the losses and gradients they give. Its code is not copied.
Packages that it imports for videos, text, clouds and curves need not be there: none is used here.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.fastgen_peer import without_unused
from tests.methods.toy import DOUBLE, Toy, weights

FIXTURES = Path(__file__).parent / "fixtures"
FUNCTIONS = {
    "consistency": "CMModel._compute_cm_loss (consistency_model/CM.py)",
    "distilled": "ode_solver (consistency_model/CM.py)",
    "mean_flow": "MeanFlowModel._compute_mf_loss (consistency_model/mean_flow.py)",
    "dmd2": "DMD2Model._student_update_step (distribution_matching/dmd2.py)",
    "f_distill": "FdistillModel._get_f_div_weighting_h (distribution_matching/f_distill.py)",
    "discriminator": "gan_loss_discriminator (common_loss.py)",
}
# Its reverse KL has a weight without a batch, which that function cannot normalise.
DIVERGENCES = {"forward_kl": "kl", "js": "js", "softened_reverse_kl": "sf",
               "neyman": "neyman", "hellinger": "sh", "jeffreys": "jf"}  # fmt: skip
N, SIDE = 6, 4


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def images(seed: int) -> Tensor:
    return normal(seed, N, 3, SIDE, SIDE)


def edm() -> Any:
    """FastGen's noise schedule of EDM."""
    from fastgen.networks.noise_schedule import EDMNoiseSchedule

    return EDMNoiseSchedule(min_t=0.002, max_t=80.0, t_precision="float64")


def consistency(methods: Any) -> dict[str, Tensor]:
    """ECT's loss at two stages of its schedule, from data and by the teacher's ODE."""
    found = {"x": images(1), "eps": images(2), "weights": flat(3), "teacher": flat(4),
             "t": torch.tensor([0.05, 0.3, 0.9, 2.0, 9.0, 70.0], dtype=DOUBLE)}  # fmt: skip
    for stage in (0, 3):
        net = Toy(weights(3))
        model = SimpleNamespace(
            ratio=1 - 2.0 ** -(stage + 1), device=torch.device("cpu"),
            sample_t_cfg=SimpleNamespace(min_r=0.002, quantize=False),
            loss_config=SimpleNamespace(use_cd=False, huber_const=0.0, use_squared_l2=False,
                                        weighting_ct_loss="default"),
        )  # fmt: skip
        model._pred_to_loss = lambda model=model, **k: methods.CMModel._pred_to_loss(model, **k)
        # Noise levels below the smallest are the clean image with us, so none gets there.
        rows = slice(3 if stage == 0 else 0, None)
        with drawn(found["eps"][rows]):
            loss, _, _ = methods.CMModel._compute_cm_loss(
                model, _edm_net(net), found["x"][rows], found["t"][rows]
            )
        loss.mean().backward()
        found |= kept(f"stage{stage}", loss, net)
        found[f"stage{stage}.first"] = torch.tensor(rows.start)
    return found


def distilled() -> dict[str, Tensor]:
    """One Euler step of the probability-flow ODE, FastGen's step of consistency distillation."""
    from fastgen.methods.consistency_model.CM import ode_solver

    x, t = images(5), torch.tensor([0.05, 0.3, 0.9, 2.0, 9.0, 70.0], dtype=DOUBLE)
    teacher = Toy(weights(4))

    def net(x_t: Tensor, at: Tensor, **_: Any) -> Tensor:
        return (x_t - teacher(x_t, at)) / at[:, None, None, None]

    return {"x": x, "t": t, "r": t / 2, "out": ode_solver(net, x, t, t / 2)}


def mean_flow(methods: Any) -> dict[str, Tensor]:
    """Velocity, derivative, adaptive weight and loss; two of six rows have r = t."""
    from fastgen.networks.noise_schedule import RFNoiseSchedule

    t = torch.tensor([0.2, 0.7, 0.3, 0.5, 0.8, 0.98], dtype=DOUBLE)
    r = torch.where(torch.arange(N) < 2, t, t * 0.4)
    x, eps, net = images(6), images(7), Toy(weights(8))
    # No smallest distance of times: it would move r = t apart.
    schedule = RFNoiseSchedule(min_t=0.0, max_t=0.999, t_precision="float64")

    class Model(methods.MeanFlowModel):  # type: ignore[misc]
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)

    model = Model()
    model.device, model.precision_amp_jvp = torch.device("cpu"), None

    class Net(torch.nn.Module):
        noise_scheduler = schedule

        def forward(self, z: Tensor, t: Tensor, r: Tensor, **_: Any) -> Tensor:
            return net.velocity(z, r, t)

    model.net = Net()
    model.config = SimpleNamespace(guidance_scale=None, guidance_mixture_ratio=None,
                                   cond_dropout_prob=None)  # fmt: skip
    model.loss_config = SimpleNamespace(
        use_cd=False, use_jvp_finite_diff=False, norm_method="poly_0.75", norm_const=1e-3,
        tangent_warmup_steps=0, loss_type="l2",
    )  # fmt: skip
    with drawn(eps):
        loss, *_ = model._compute_mf_loss(x, t, r, 0)
    loss.mean().backward()
    return {"x": x, "eps": eps, "t": t, "r": r, "weights": flat(8)} | kept("loss", loss, net)


def dmd2(methods: Any) -> dict[str, Tensor]:
    """The generator's step: pull and discriminator. FastGen's discriminator sees the teacher's
    features and DMD2's the critic's; here it is a network of its own, so both see the same.
    """
    made, eps = images(9).requires_grad_(), images(10)
    t = torch.tensor([0.2, 0.4, 0.6, 1.5, 8.0, 60.0], dtype=DOUBLE)
    teacher, critic = Toy(weights(11)), Toy(weights(12))

    def real(x: Tensor, at: Tensor, feature_indices: Any = None, **_: Any) -> Any:
        denoised = teacher(x, at)
        return denoised if feature_indices is None else (denoised, (x, at))

    def discriminator(seen: Any) -> Tensor:
        return critic.logits(*seen)[:, None]

    discriminator.feature_indices = ()  # type: ignore[attr-defined]
    model = SimpleNamespace(
        net=SimpleNamespace(noise_scheduler=edm()), teacher=real, discriminator=discriminator,
        fake_score=lambda x, at, **_: critic(x, at), device=torch.device("cpu"),
        gen_data_from_net=lambda *_, **__: made, _get_outputs=lambda *_, **__: {},
        config=SimpleNamespace(guidance_scale=None, gan_loss_weight_gen=3e-3),
    )  # fmt: skip
    model._compute_teacher_prediction_gan_loss = lambda *a, **k: (
        methods.DMD2Model._compute_teacher_prediction_gan_loss(model, *a, **k)
    )
    losses, _ = methods.DMD2Model._student_update_step(
        model, made.detach(), t, t, eps, {"real": made.detach()}
    )
    losses["total_loss"].backward()
    assert made.grad is not None
    return {"made": made.detach(), "eps": eps, "t": t, "teacher": flat(11), "critic": flat(12),
            "vsd_loss": losses["vsd_loss"].detach(), "gan_loss": losses["gan_loss_gen"].detach(),
            "gradient": made.grad}  # fmt: skip


def f_distill(methods: Any) -> dict[str, Tensor]:
    """h(r) over its batch mean, without the clip of r and without bins."""
    from fastgen.methods.distribution_matching.f_distill import all_f_div_weighting_function

    logits = torch.linspace(-9, 9, 37, dtype=DOUBLE)
    found = {"logits": logits}
    for name, theirs in DIVERGENCES.items():
        model = SimpleNamespace(
            f_div_weighting_function=all_f_div_weighting_function[theirs],
            config=SimpleNamespace(f_distill=SimpleNamespace(
                ratio_lower=0.0, ratio_upper=1e9, ratio_normalization=False)),
        )  # fmt: skip
        h = methods.FdistillModel._get_f_div_weighting_h
        found[name] = h(model, logits[:, None], logits)
    return found


def discriminator() -> dict[str, Tensor]:
    """The logistic loss of real and generated images, which a ratio network has too."""
    from fastgen.methods.common_loss import gan_loss_discriminator

    real, made = normal(13, N, 1).requires_grad_(), normal(14, N, 1).requires_grad_()
    loss = gan_loss_discriminator(real, made)
    loss.backward()
    assert real.grad is not None and made.grad is not None
    return {"real": real.detach()[:, 0], "made": made.detach()[:, 0], "loss": loss.detach(),
            "of_real": real.grad[:, 0], "of_made": made.grad[:, 0]}  # fmt: skip


def flat(seed: int) -> Tensor:
    """Weights of a toy as one vector."""
    return torch.cat([w.flatten() for w in weights(seed)])


def kept(name: str, loss: Tensor, net: Toy) -> dict[str, Tensor]:
    found = {f"{name}.loss": loss.detach().double()}
    return found | {f"{name}.{key}": p.grad for key, p in net.named_parameters()
                    if p.grad is not None}  # fmt: skip


def drawn(eps: Tensor) -> Any:
    """Noise that is known instead of drawn."""
    return patch.object(torch, "randn_like", lambda *_, **__: eps)


def _edm_net(net: Toy) -> Any:
    def call(x: Tensor, t: Tensor, **_: Any) -> Tensor:
        return net(x, t)

    call.noise_scheduler = edm()  # type: ignore[attr-defined]
    return call


def main() -> None:
    checkout = Path(sys.argv[1])
    sys.path.insert(0, str(checkout))
    without_unused()
    methods = importlib.import_module("fastgen.methods")
    groups = {
        "consistency": consistency(methods), "distilled": distilled(),
        "mean_flow": mean_flow(methods), "dmd2": dmd2(methods), "f_distill": f_distill(methods),
        "discriminator": discriminator(),
    }  # fmt: skip
    FIXTURES.mkdir(exist_ok=True)
    file = FIXTURES / "fastgen.safetensors"
    save_file({f"{group}.{name}": value.contiguous() for group, found in groups.items()
               for name, value in found.items()}, file)  # fmt: skip
    git = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    revision = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    told = {
        "script": "tests/methods/make_fastgen.py",
        "revisions": {"https://github.com/NVlabs/FastGen": revision},
        "licence": "Apache-2.0; no code of it is here",
        "functions": FUNCTIONS,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "sha256": {file.name: hashlib.sha256(file.read_bytes()).hexdigest()},
    }
    (FIXTURES / "provenance.json").write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
