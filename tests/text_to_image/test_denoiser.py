"""A network of discrete steps in EDM's form: closed forms, and diffusers' schedulers' steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pagoda.diffusion.solver import edm_grid, guided, integrate, invert, sample
from pagoda.errors import PagodaError
from pagoda.text_to_image.denoiser import (
    PREDICTIONS,
    Consistency,
    DiscreteDenoiser,
    Limits,
    dynamic_threshold,
    guidance_embedding,
)
from pagoda.text_to_image.schedule import NoiseSchedule
from tests.text_to_image.pipelines import IF, SD, if_unet, unet

diffusers = pytest.importorskip("diffusers")
STD = 0.7  # of the data of `Gaussian`


def schedule(**options: Any) -> NoiseSchedule:
    return NoiseSchedule.of(diffusers.DDPMScheduler(**SD | options).alphas_cumprod)


class Gaussian(nn.Module):
    """The best network for data ~ N(0, STD^2), which gives what ``prediction`` says."""

    def __init__(self, prediction: str, levels: NoiseSchedule, channels: int = 3) -> None:
        super().__init__()
        self.prediction, self.levels = prediction, levels
        self.config = SimpleNamespace(in_channels=3, out_channels=channels)

    def forward(self, seen: Tensor, t: Tensor, **told: Any) -> tuple[Tensor]:
        s = self.levels.sigma(t)[:, None, None, None]
        a = (1 + s**2).rsqrt()
        clean = STD**2 / (STD**2 + s**2) * seen / a
        noise = (seen - a * clean) / (s * a)
        made = {"epsilon": noise, "sample": clean, "v_prediction": a * noise - s * a * clean}
        out = made[self.prediction] + 0 * told["encoder_hidden_states"].mean()
        return (torch.cat([out, out.new_ones(out.shape)], 1)[:, : self.config.out_channels],)


def test_levels_and_times_are_each_others_inverse() -> None:
    levels = schedule()
    t = torch.tensor([0, 10.4, 353.9, 795.2, 999], dtype=torch.float64)
    torch.testing.assert_close(levels.time(levels.sigma(t)), t, rtol=1e-12, atol=1e-9)
    whole = torch.arange(1000)
    assert torch.equal(levels.time(levels.levels).round(), whole.double())
    torch.testing.assert_close(
        levels.time(levels.levels.float()), whole.double(), rtol=0, atol=1e-3
    )
    middle = levels.sigma(torch.tensor([500.5]))
    torch.testing.assert_close(middle, (levels.levels[500:501] * levels.levels[501]).sqrt())
    # by hand: abar of the two betas of a schedule of two steps
    abar = torch.tensor([0.9, 0.9 * 0.5])
    torch.testing.assert_close(
        NoiseSchedule.of(abar).levels, torch.tensor([1 / 9, 0.55 / 0.45]).double().sqrt()
    )


def test_a_level_that_the_network_does_not_know_is_one_line() -> None:
    levels = schedule()
    for asked, said in ((0.01, "sigma = 0.01 is outside"), (80.0, "sigma = 80 is outside")):
        with pytest.raises(PagodaError, match=said + r".*0.02917 to 14.6146"):
            levels.time(torch.tensor([1.0, asked]))
    with pytest.raises(PagodaError, match="0 to 999"):
        levels.sigma(torch.tensor([1000]))
    with pytest.raises(PagodaError, match="no falling signal"):
        NoiseSchedule.of(torch.tensor([0.5, 0.9]))
    zero = schedule(rescale_betas_zero_snr=True)  # its last step is noise alone
    assert len(zero.levels) == 999 and zero.levels.isfinite().all()
    floyd = NoiseSchedule.of(diffusers.DDPMScheduler(**IF).alphas_cumprod)
    assert floyd.usual_max == 80 < floyd.sigma_max and levels.usual_max == levels.sigma_max


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("channels", [3, 6])
def test_every_prediction_is_the_closed_form(prediction: str, channels: int) -> None:
    """D = STD^2 / (STD^2 + s^2) x, whatever the network says, with a learned variance or not."""
    levels = schedule()
    d = DiscreteDenoiser(Gaussian(prediction, levels, channels), levels, prediction)
    sigma = torch.tensor([0.03, 0.5, 3.3, 14.6], dtype=torch.float64)
    x = (
        torch.randn(4, 3, 2, 2, dtype=torch.float64)
        * (STD**2 + sigma**2).sqrt()[:, None, None, None]
    )
    wanted = STD**2 / (STD**2 + sigma[:, None, None, None] ** 2) * x
    text = torch.zeros(4, 1, 1)
    torch.testing.assert_close(d(x, sigma, text), wanted, rtol=1e-9, atol=1e-9)
    # and the ODE of a Gaussian has a solution: x(s) = x(s') sqrt((STD^2 + s^2) / (STD^2 + s'^2))
    grid = edm_grid(60, levels.sigma_min, levels.sigma_max, 7)
    up = invert(d, x, grid, text)
    scale = ((STD**2 + grid[0] ** 2) / (STD**2 + grid[-2] ** 2)).sqrt()
    torch.testing.assert_close(up, scale * x, rtol=1e-2, atol=0)


def test_networks_of_other_kinds_are_refused() -> None:
    levels = schedule()
    with pytest.raises(PagodaError, match="predicts 'flow'; known: epsilon, v_prediction, sample"):
        DiscreteDenoiser(Gaussian("epsilon", levels), levels, "flow")
    with pytest.raises(PagodaError, match="takes 3 channels and gives 4"):
        DiscreteDenoiser(Gaussian("epsilon", levels, 4), levels, "epsilon")


def tiny(scheduler: Any, network: Any = None) -> DiscreteDenoiser:
    network = (network or unet()).double()
    levels = NoiseSchedule.of(scheduler.alphas_cumprod)
    return DiscreteDenoiser(network, levels, scheduler.config.prediction_type)


def state(channels: int = 4) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    draw = {"generator": g, "dtype": torch.float64}
    return torch.randn(2, channels, 8, 8, **draw), torch.randn(2, 5, 32, **draw)  # type: ignore[call-overload]


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_euler_steps_are_those_of_diffusers(name: str, prediction: str) -> None:
    """DDIM without noise is Euler's method in sigma; each whole way, to 1e-5 of its size."""
    options = {k: v for k, v in SD.items() if "Euler" not in name or k != "clip_sample"}
    scheduler = getattr(diffusers, name)(
        **options, prediction_type=prediction, timestep_spacing="trailing"
    )
    d, (z, text) = tiny(scheduler), state()
    scheduler.set_timesteps(8)  # which divides 1000: DDIM rounds other strides
    levels = d.schedule.sigma(scheduler.timesteps)
    assert "Euler" not in name or torch.allclose(scheduler.sigmas[:-1].double(), levels, rtol=1e-5)
    in_edm = "Euler" in name  # its state is EDM's, that of DDIM is c_in times it
    x = levels[0] * z
    theirs = x if in_edm else x / (1 + levels[0] ** 2).sqrt()
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(theirs, t)
        made = d.unet(seen, t, encoder_hidden_states=text, return_dict=False)[0]
        theirs = scheduler.step(made, t, theirs, return_dict=False)[0]
    ours = sample(d, x, torch.cat([levels, levels.new_zeros(1)]), text, "euler")
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_floyds_denoiser_is_what_ddpm_predicts() -> None:
    """With its learned variance and its threshold, at early and late steps, guided too."""
    scheduler = diffusers.DDPMScheduler(**IF)
    d, (z, text) = tiny(scheduler, if_unet()), state(3)
    d.empty = text.flip(0)[:1] / 2
    limits = Limits.of(scheduler)
    assert limits.fraction == 0.95 and limits.most == 1.5
    for t in (3, 400, 900, 985):
        for weight in (1.0, 7.0):
            told, untold = (
                d.unet(z, t, encoder_hidden_states=e, return_dict=False)[0]
                for e in (text, d.empty.expand_as(text))
            )
            noise, variance = (untold + weight * (told - untold))[:, :3], told[:, 3:]
            step = scheduler.step(torch.cat([noise, variance], 1), t, z, torch.Generator())
            sigma = d.schedule.sigma(torch.tensor([t, t]))
            x = z * (1 + sigma[:, None, None, None] ** 2).sqrt()
            ours = limits.apply(guided(d, weight))(x, sigma, text)
            theirs = step.pred_original_sample
            assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_a_threshold_by_hand() -> None:
    x = torch.tensor([[0.1, -0.2, 0.3, 4.0], [0.5, -2.0, 1.0, 2.0]]).reshape(2, 1, 2, 2)
    made = dynamic_threshold(x, 0.5, 10).reshape(2, 4)
    # halves of |x|: 0.25, which is raised to 1, and 1.5
    torch.testing.assert_close(
        made, torch.tensor([[0.1, -0.2, 0.3, 1], [0.5 / 1.5, -1, 1 / 1.5, 1]])
    )
    assert torch.equal(dynamic_threshold(x, 0.95, 1.0), x.clamp(-1, 1))
    clip = Limits.of(SimpleNamespace(config={"clip_sample": True, "clip_sample_range": 2.0}))
    assert torch.equal(clip(x), x.clamp(-2, 2))
    assert torch.equal(Limits.of(SimpleNamespace(config={}))(x), x)


def lcm(**options: Any) -> tuple[Any, Consistency]:
    scheduler = diffusers.LCMScheduler(**SD | options)
    d = tiny(scheduler, unet(time_cond_proj_dim=32))
    return scheduler, Consistency(d, Limits.of(scheduler), scheduler.config.timestep_scaling, 50)


def test_consistency_steps_are_those_of_lcm(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, f = lcm()
    z, text = state()
    noise = torch.randn(4, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).double()
    step = f"{type(scheduler).__module__}.randn_tensor"
    weight = guidance_embedding(torch.full((2,), 7.5), 32).double()
    for steps in (1, 2, 4):
        scheduler.set_timesteps(steps)
        theirs = z
        for k, t in enumerate(scheduler.timesteps):
            monkeypatch.setattr(step, lambda *_, k=k, **__: noise[k + 1])
            made = f.denoiser.unet(theirs, t, timestep_cond=weight, encoder_hidden_states=text)
            theirs, clean = scheduler.step(made.sample, t, theirs, return_dict=False)
        levels = f.denoiser.schedule.sigma(f.times(steps))
        x = z * (1 + levels[0] ** 2).sqrt()
        ours = f.sample(x, levels, text, 7.5, lambda k: noise[k])
        assert (ours - clean).abs().max() < 1e-5 * clean.abs().max()


def test_consistency_times_are_those_of_lcm() -> None:
    scheduler, f = lcm()
    for steps in range(1, 51):
        scheduler.set_timesteps(steps)
        assert torch.equal(f.times(steps), scheduler.timesteps)
    with pytest.raises(PagodaError, match="takes 1 to 50"):
        f.times(51)


def test_at_time_zero_a_consistency_function_is_the_identity() -> None:
    _, f = lcm(num_train_timesteps=1000)
    z, text = state()
    sigma = torch.full((2,), f.denoiser.schedule.sigma_min).double()
    torch.testing.assert_close(f(z, sigma, text, 3.0), z * (1 + sigma[0] ** 2).rsqrt())


def test_guidance_embedding_is_that_of_diffusers() -> None:
    w = torch.tensor([1.0, 1.5, 8.5, 14.0])
    theirs = diffusers.LatentConsistencyModelPipeline.get_guidance_scale_embedding
    for size in (32, 33):
        torch.testing.assert_close(
            guidance_embedding(w, size), theirs(None, w - 1, size), rtol=0, atol=1e-3
        )
    torch.testing.assert_close(guidance_embedding(w[:1], 4), torch.tensor([[0.0, 0, 1, 1]]))


def test_the_way_back_is_the_way_up() -> None:
    """Inversion, then sampling on the same grid; Euler's method, of lower order, is farther off."""
    d, (z, text) = tiny(diffusers.DDIMScheduler(**SD)), state()
    grid = edm_grid(16, d.schedule.sigma_min, d.schedule.sigma_max, 7)
    off = []
    for solver in ("heun", "euler"):
        up = invert(d, z, grid, text, solver)
        off.append((integrate(d, up, grid[:-1], text, solver) - z).square().mean().sqrt())
    assert off[0] < 0.02 and off[0] < off[1] / 3
