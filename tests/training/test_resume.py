"""A training that was stopped and went on equals one that was not, bit for bit.

Weights are channels-last, as the stages train them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pagoda.cli import explain
from pagoda.errors import PagodaError
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminator import ConvDiscriminator
from pagoda.networks.generator import generator_from_teacher, grow
from pagoda.networks.unet import UNetSpec
from pagoda.training.batches import ImageBatches, PairBatches
from pagoda.training.checkpoint import Scratch, scratch_folder
from pagoda.training.history import History
from pagoda.training.loop import LoopSpec, Step, train
from pagoda.training.one_step import OneStepSpec, OneStepStep
from pagoda.training.optim import OptimSpec
from pagoda.training.teacher import TeacherStep
from tests.disk import small_disk

CPU = torch.device("cpu")
SPEC = UNetSpec(8, 16, (1, 2), 1, (4,), 16, 0.1, 4, time_scale=1.0)
STEPS, BATCH = 6, 4
LOOP = LoopSpec("toy", STEPS * BATCH, BATCH, warmup=0.2, decay=0.5, seed=3, save_every_s=-1.0)
ONE_STEP = OneStepSpec(
    batch=BATCH, prior_batch=3, regression="reconstruction", feature_weight=0.1,
    adversarial="hinge", fakes="prior", weighting="adaptive", weight=0.3, weight_min=0.0,
    weight_max=10.0, adversarial_start=0.0, adversarial_ramp=0.5, r1=1.0, r1_every=2,
    augment=True, clip=1.0, ema=0.9, precision="fp32",
)  # fmt: skip


def pixels(n: int, resolution: int) -> np.ndarray:
    shape = (n, 3, resolution, resolution)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def teacher_step(optimizer: str = "adamw", **changes: Any) -> TeacherStep:
    torch.manual_seed(5)
    return TeacherStep(
        Denoiser(SPEC, 0.5).to(memory_format=torch.channels_last),
        ImageBatches(pixels(20, 8), np.arange(20) % 4, CPU),
        batch=BATCH, optim=OptimSpec(optimizer, 1e-2, (0.9, 0.99), 0.01), p_mean=-1.2, p_std=1.2,
        clip=1.0, ema=0.9, **({"precision": "fp32"} | changes),
    )  # fmt: skip


def one_step(optimizer: str = "adamw", **changes: Any) -> OneStepStep:
    torch.manual_seed(5)
    teacher = Denoiser(SPEC, 0.5)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    base = generator_from_teacher(teacher, sigma_max=80.0, output="denoiser")
    generator = grow(base, channels=16, blocks=1)
    generator.freeze_base(1)
    rng = np.random.default_rng(2)
    pairs = PairBatches(
        rng.standard_normal((16, 3, 8, 8)).astype(np.float32), np.arange(16) // 2,
        (np.arange(16) % 2).astype(np.uint8), pixels(20, 16), np.arange(16) // 2 % 4, CPU,
    )  # fmt: skip
    return OneStepStep(
        generator.to(memory_format=torch.channels_last),
        ConvDiscriminator(16, 4, 8, 4).to(memory_format=torch.channels_last),
        pairs,
        ImageBatches(pixels(20, 16), np.arange(20) % 4, CPU),
        dataclasses.replace(ONE_STEP, **changes),
        OptimSpec(optimizer, 1e-2, (0.9, 0.99)),
        OptimSpec("adamw", 1e-2, (0.0, 0.99)),
    )


class Stopped(Exception):
    """Stands for a power cut."""


def go(
    make: Callable[[], Step], folder: Path, *, stop_after: int | None = None, spec: LoopSpec = LOOP
) -> Step:
    """Train fresh objects from whatever ``folder`` holds; a power cut after ``stop_after``."""
    step = make()
    seen = 0

    def advance(images: int) -> None:
        nonlocal seen
        seen += images
        if stop_after is not None and seen > stop_after * BATCH:
            raise Stopped

    scratch = Scratch(folder / "scratch", step.modules, step.optimizers)
    with contextlib.suppress(Stopped):
        train(step, spec, scratch, lambda kept: History(folder / "h.jsonl", kept), advance)
    return step


def state(step: Step) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, module in step.modules.items()
        for key, value in module.state_dict().items()
    }


def assert_same(a: Step, b: Step) -> None:
    left, right = state(a), state(b)
    assert left.keys() == right.keys()
    different = [k for k in left if not torch.equal(left[k], right[k])]
    assert not different


def rows(folder: Path) -> list[dict[str, float]]:
    """History without wall-clock times."""
    read = [json.loads(row) for row in (folder / "h.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read]


MAKERS = [
    pytest.param(lambda: teacher_step(), id="teacher-adamw"),
    pytest.param(lambda: teacher_step("radam"), id="teacher-radam"),
    pytest.param(lambda: teacher_step(label_dropout=0.5), id="teacher-label-dropout"),
    pytest.param(lambda: teacher_step(precision="bf16"), id="teacher-bf16"),
    pytest.param(lambda: teacher_step(precision="fp16"), id="teacher-fp16"),
    pytest.param(lambda: one_step(), id="one-step-adamw"),
    pytest.param(lambda: one_step(precision="fp16", r1=0.0), id="one-step-fp16"),
]


@pytest.mark.parametrize("make", MAKERS)
def test_stopped_and_continued_equals_uninterrupted(
    make: Callable[[], Step], tmp_path: Path
) -> None:
    whole = go(make, tmp_path / "whole")
    assert any(not torch.equal(v, state(make())[k]) for k, v in state(whole).items())
    go(make, tmp_path / "parts", stop_after=3)
    assert list((tmp_path / "parts" / "scratch").glob("*.safetensors"))
    assert_same(go(make, tmp_path / "parts"), whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def radam() -> TeacherStep:
    return teacher_step("radam")


@pytest.mark.parametrize("damage", ["truncated", "changed", "no checksum"])
def test_a_damaged_newest_checkpoint_is_passed_over(damage: str, tmp_path: Path) -> None:
    whole = go(radam, tmp_path / "whole")
    go(radam, tmp_path / "parts", stop_after=4)
    newest = max((tmp_path / "parts" / "scratch").glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        content[-1] ^= 1
        newest.write_bytes(content)
    else:
        newest.with_suffix(".sha256").unlink()
    step = radam()
    restored, _ = Scratch(newest.parent, step.modules, step.optimizers).restore()
    assert restored == int(newest.stem) - 1
    assert_same(go(radam, tmp_path / "parts"), whole)


def test_clocks_and_temporary_folders_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = go(radam, tmp_path / "whole")
    go(radam, tmp_path / "parts", stop_after=4)
    for age, file in enumerate(sorted((tmp_path / "parts").rglob("*.*"))):
        os.utime(file, (4e9 - 1e9 * age,) * 2)  # some in the future, the newest the oldest
    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert_same(go(radam, tmp_path / "parts"), whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_a_full_disk_keeps_the_checkpoints_and_the_curves(tmp_path: Path) -> None:
    """On a small file system that fills up; room again, and the end is that of an empty one."""
    whole, small = go(radam, tmp_path / "whole"), tmp_path / "small"
    small.mkdir()
    with small_disk(small, "64m"):
        go(radam, small, stop_after=2)
        before = rows(small)
        free = shutil.disk_usage(small).free
        ballast = small / "ballast"
        ballast.write_bytes(b"x" * (free - 20_000))
        with pytest.raises(Exception, match="No space left") as error:
            go(radam, small)
        assert explain(error.value) == (
            "no space left on the disk; free some and run the same command again"
        )
        kept = sorted(p.name for p in (small / "scratch").iterdir())
        assert kept == [f"{s:09d}.{e}" for s in (1, 2) for e in ("safetensors", "sha256")]
        assert rows(small)[: len(before)] == before
        ballast.unlink()
        assert_same(go(radam, small), whole)
        assert rows(small) == rows(tmp_path / "whole")


def test_at_most_two_checkpoints_are_kept(tmp_path: Path) -> None:
    go(teacher_step, tmp_path, stop_after=5)
    names = sorted(p.name for p in (tmp_path / "scratch").iterdir())
    assert names == [f"{s:09d}.{e}" for s in (4, 5) for e in ("safetensors", "sha256")]
    step = teacher_step()
    Scratch(tmp_path / "scratch", step.modules, step.optimizers).discard()
    assert not (tmp_path / "scratch").exists()


def test_nothing_to_restore(tmp_path: Path) -> None:
    step = teacher_step()
    before = state(step)
    assert Scratch(tmp_path / "none", step.modules, step.optimizers).restore() == (0, 0.0)
    assert all(torch.equal(v, before[k]) for k, v in state(step).items())


class Toy:
    """Something to train whose statistics and signals a test decides."""

    def __init__(self, act: Callable[[int], float]) -> None:
        self.net = nn.Linear(2, 2)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.5)
        self.modules: dict[str, nn.Module] = {"net": self.net}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"net": self.optimizer}
        self.act, self.rates = act, list[float]()

    def __call__(self, step: int, progress: float) -> dict[str, Tensor | float]:
        assert progress == step / STEPS
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        return {"loss": self.act(step), "grad_norm": 1.0}

    def rows(self) -> np.ndarray:
        return torch.randint(100, (BATCH,)).numpy()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_training(value: float, tmp_path: Path) -> None:
    with pytest.raises(PagodaError) as error:
        go(lambda: Toy(lambda i: value if i == 3 else 1.0), tmp_path)
    message = str(error.value)
    assert "\n" not in message and "toy: loss is not finite at step 3" in message
    assert "grad_norm" not in message
    assert max(p.stem for p in (tmp_path / "scratch").glob("*.safetensors")) == "000000003"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_training_after_its_step(number: signal.Signals, tmp_path: Path) -> None:
    done: list[int] = []

    def act(i: int) -> float:
        if i == 2:
            os.kill(os.getpid(), number)
        done.append(i)
        return 1.0

    before = signal.getsignal(number)
    never = dataclasses.replace(LOOP, save_every_s=1e9)
    with pytest.raises(KeyboardInterrupt):
        go(lambda: Toy(act), tmp_path, spec=never)
    assert done == [0, 1, 2]  # the step in hand was finished, and no other began
    assert [p.name for p in (tmp_path / "scratch").glob("*.safetensors")] == [
        "000000003.safetensors"
    ]
    assert signal.getsignal(number) is before
    go(lambda: Toy(act), tmp_path, spec=never)
    assert done == list(range(STEPS))


def test_every_rate_follows_the_schedule(tmp_path: Path) -> None:
    step = go(lambda: Toy(lambda i: 1.0), tmp_path)
    assert isinstance(step, Toy)
    assert step.rates == pytest.approx([0.5 * LOOP.rate(i / STEPS) for i in range(STEPS)])


def test_schedule_warms_up_stays_and_falls_as_a_root() -> None:
    spec = LoopSpec("x", images=1000, batch=1, warmup=0.1, decay=0.4, seed=0)
    rates = [spec.rate(i / spec.steps) for i in range(spec.steps)]
    assert rates[:100] == pytest.approx([(i + 1) / 100 for i in range(100)])
    assert rates[100:601] == pytest.approx([1.0] * 501)
    assert rates[600:] == pytest.approx([((1000 - i) / 400) ** 0.5 for i in range(600, 1000)])
    assert 0 < rates[-1] < 0.051
    flat = LoopSpec("x", images=10, batch=1, warmup=0.0, decay=0.0, seed=0)
    assert {flat.rate(i / 10) for i in range(10)} == {1.0}


def test_history_keeps_rows_up_to_where_training_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "h.jsonl"
    for keep, images in ((-1, [8, 16, 24]), (16, [24, 32])):
        with History(path, keep) as history:
            for n in images:
                history.write(images=n, step=n // 8, seconds=1.0, loss=float(keep))
    read = [json.loads(row) for row in path.read_text().splitlines()]
    assert [row["images"] for row in read] == [8, 16, 24, 32]
    assert [row["loss"] for row in read] == [-1, -1, 16, 16]
    with History(path):
        assert path.read_text() == ""  # a new training starts afresh


def test_history_comes_back_when_the_output_was_deleted(tmp_path: Path) -> None:
    """DVC deletes the outputs of a stage that was interrupted; its scratch has a copy."""
    path, backup = tmp_path / "h.jsonl", tmp_path / "backup.jsonl"
    with History(path, -1, backup) as history:
        history.write(images=8, step=1, seconds=1.0)
        history.back_up()
        history.write(images=16, step=2, seconds=2.0)
    path.unlink()
    with History(path, 8, backup) as history:
        history.write(images=16, step=2, seconds=3.0)
    rows = [json.loads(row) for row in path.read_text().splitlines()]
    assert [(row["images"], row["seconds"]) for row in rows] == [(8, 1.0), (16, 3.0)]


def test_history_drops_a_row_that_a_kill_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"images": 8, "step": 1, "seconds": 1.0}\n{"images": 16, "st')
    with History(path, 16):
        assert [json.loads(row)["images"] for row in path.read_text().splitlines()] == [8]


def test_scratch_is_named_after_all_it_depends_on(tmp_path: Path) -> None:
    identity = {"sections": {"lr": 0.1, "clip": None}, "seed": 0}
    folder = scratch_folder(tmp_path, "teacher", identity)
    same = {"seed": 0, "sections": {"clip": None, "lr": 0.1}}
    assert scratch_folder(tmp_path, "teacher", same) == folder
    assert folder.parent == tmp_path / ".scratch" / "teacher"
    others = [
        scratch_folder(tmp_path, "teacher", identity | {"seed": 1}),
        scratch_folder(tmp_path, "teacher", identity | {"sections": {"lr": 0.2, "clip": None}}),
        scratch_folder(tmp_path, "distill", identity),
    ]
    assert len({folder, *others}) == 4


def test_frozen_parameters_keep_their_bits_and_the_others_move() -> None:
    step = one_step()
    before = {n: p.detach().clone() for n, p in step.generator.named_parameters()}
    average = {n: p.detach().clone() for n, p in step.ema.model.named_parameters()}
    for i in range(3):
        step(i, i / STEPS)
    averaged = dict(step.ema.model.named_parameters())
    for name, parameter in step.generator.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == parameter.requires_grad, name
        assert (not torch.equal(averaged[name], average[name])) == parameter.requires_grad, name


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        ({"adversarial": "none"}, {"loss_rec"}, {"loss_adv", "loss_d", "lambda"}),
        ({"regression": "none"}, {"loss_adv", "loss_d"}, {"loss_rec", "loss_features"}),
        ({"regression": "noise_to_data"}, {"loss_dstl", "loss_adv"}, {"loss_rec"}),
        ({"feature_weight": 0.0}, {"loss_rec", "loss_adv"}, {"loss_features"}),
        ({"adversarial_start": 0.6}, {"loss_rec"}, {"loss_adv", "loss_d", "lambda"}),
        ({"precision": "bf16"}, {"loss_rec", "loss_adv", "loss_features"}, set()),
    ],
)
def test_every_variant_trains_what_it_says(
    changes: dict[str, Any], present: set[str], absent: set[str]
) -> None:
    step = one_step(**changes)
    before = state(step)
    stats = step(0, 0.5)
    assert present | {"loss", "grad_norm", "lr"} <= stats.keys() and not absent & stats.keys()
    assert all(np.isfinite(float(value)) for value in stats.values())
    after = state(step)
    moved = {k.split(".")[0] for k in after if not torch.equal(after[k], before[k])}
    judged = "loss_d" in present or "loss_adv" in present
    assert moved == {"generator", "ema"} | ({"discriminator"} if judged else set())


def test_lambda_ramps_up_from_the_start_of_the_adversarial_loss() -> None:
    step = one_step(weighting="fixed", adversarial_start=0.2, adversarial_ramp=0.4)
    assert "lambda" not in step(0, 0.1)
    weights = [float(step(1, progress)["lambda"]) for progress in (0.2, 0.3, 0.4, 0.6, 0.9)]
    assert weights == pytest.approx([0.0, 0.075, 0.15, 0.3, 0.3])


def test_total_loss_is_the_weighted_sum() -> None:
    stats = {k: float(v) for k, v in one_step(weighting="fixed")(0, 0.5).items()}
    total = stats["loss_rec"] + 0.1 * stats["loss_features"] + stats["lambda"] * stats["loss_adv"]
    assert stats["loss"] == pytest.approx(total, rel=1e-5)


def test_pairs_mirror_the_image_as_the_latent_was() -> None:
    images = pixels(4, 8)
    latents = np.arange(8, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 8, 8), "f4")
    flips = (np.arange(8) % 2).astype(np.uint8)
    pairs = PairBatches(latents, np.arange(8) // 2, flips, images, np.arange(8) * 10, CPU)
    z, x, labels = pairs.draw(64)
    seen = z[:, 0, 0, 0].long().numpy()
    assert set(seen) == set(range(8))
    for row, image, label in zip(seen, x.numpy(), labels.numpy(), strict=True):
        expected = images[row // 2][:, :, :: -1 if row % 2 else 1] / 127.5 - 1
        np.testing.assert_allclose(image, expected, atol=1e-6)
        assert label == row * 10


def test_image_batches_mirror_half() -> None:
    images = np.zeros((1, 3, 4, 4), np.uint8)
    images[..., 0] = 255
    x, labels = ImageBatches(images, np.array([7]), CPU).draw(400)
    left = x[:, 0, 0, 0] == 1
    right = x[:, 0, 0, -1] == 1
    assert torch.equal(left, ~right) and (labels == 7).all()
    assert abs(left.float().mean().item() - 0.5) < 4 * 0.5 / 20
