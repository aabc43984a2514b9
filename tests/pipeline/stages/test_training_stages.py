"""The training stages end to end on the tiny experiment."""

from __future__ import annotations

import json
import platform
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import pagoda
from pagoda import artifacts, distributed
from pagoda.config import Config, parse
from pagoda.config.paths import Paths
from pagoda.diffusion.solver import edm_grid, sample
from pagoda.errors import PagodaError
from pagoda.networks.denoiser import load_denoiser
from pagoda.networks.generator import load_generator
from pagoda.pipeline.doctor import examine
from pagoda.pipeline.stages import device, distill, downsample, grow, invert, teacher, train
from pagoda.pipeline.stages.models import weight_of
from pagoda.pipeline.stages.train import pair_batches
from pagoda.training.post_hoc import synthesise
from tests.group import log, run_group
from tests.tiny import tiny_tree

Make = Callable[..., Config]
SMALL = {"data.train_images": 100, "data.test_images": 20, "target_res": 16}


def run_all(config: Config) -> dict[str, str]:
    """Run every training stage; the fingerprints of what they made."""
    for resolution in (8, 16):
        downsample.run(config, resolution)
    teacher.run(config)
    invert.run(config)
    distill.run(config)
    grow.run(config, 8, 16)
    paths = Paths(config)
    made = {
        "teacher": artifacts.open_artifact(paths.teacher, "teacher"),
        "latents": artifacts.open_artifact(paths.latents, "latents"),
        "student": artifacts.open_artifact(paths.generator(8), "generator"),
        "grown": artifacts.open_artifact(paths.generator(16), "generator"),
    }
    return {name: artifact.fingerprint for name, artifact in made.items()}


def losses(config: Config, stage: str, key: str) -> list[float]:
    lines = Paths(config).history(stage).read_text().splitlines()
    return [row[key] for row in map(json.loads, lines) if key in row]


def test_stages_end_to_end(tiny_config: Make) -> None:
    config = tiny_config(**SMALL | {"teacher.optim.images": 960})
    run_all(config)
    paths = Paths(config)
    seen = losses(config, "teacher", "loss")
    assert np.mean(seen[-5:]) < 0.9 * np.mean(seen[:5])
    latents = artifacts.open_artifact(paths.latents, "latents")
    assert latents.array("latents").shape == (128, 3, 8, 8)
    for res in (8, 16):
        made = artifacts.open_artifact(paths.generator(res), "generator", {"resolution": res})
        generator = load_generator(made.weights(), made.card())
        with torch.inference_mode():
            out = generator(torch.randn(2, 3, 8, 8), torch.tensor([0, 9]))
        assert out.shape == (2, 3, res, res) and out.isfinite().all()
        stage = "distill" if res == 8 else "grow-16"
        card, key = made.card(), "loss_rec"
        assert card["metrics"][key] == losses(config, stage, key)[-1]
        assert card["images_seen"] == json.loads(
            paths.history(stage).read_text().splitlines()[-1]
        )["images"]  # fmt: skip
    assert losses(config, "distill", "loss_rec") and losses(config, "grow-16", "loss_rec")
    assert not list(Path(".scratch").rglob("*.safetensors"))


@pytest.mark.slow
def test_a_seed_is_a_result(tiny_config: Make) -> None:
    first = run_all(tiny_config(**SMALL | {"name": "a"}))
    assert run_all(tiny_config(**SMALL | {"name": "b"})) == first
    other = run_all(tiny_config(**SMALL | {"name": "c", "seed": 1}))
    assert all(other[name] != first[name] for name in first)


@pytest.mark.longer
@pytest.mark.parametrize(
    ("setting", "value", "present", "absent"),
    [
        ("distill.loss.regression", "noise_to_data", "loss_dstl", "loss_rec"),
        ("distill.loss.adversarial", "none", "loss_rec", "loss_adv"),
    ],
)
def test_variants_of_distillation(
    tiny_config: Make, setting: str, value: str, present: str, absent: str
) -> None:
    config = tiny_config(**SMALL | {setting: value})
    downsample.run(config, 8)
    for stage in (teacher, invert, distill):
        stage.run(config)
    assert losses(config, "distill", present) and not losses(config, "distill", absent)
    artifacts.open_artifact(Paths(config).generator(8), "generator")


def _sampled(tree: dict[str, Any], folder: Path) -> None:
    """The pairs of noise-to-data distillation, with the images of each."""
    config = parse(tree)
    with distributed.group():
        made, data = (artifacts.open_artifact(path, kind) for path, kind in (
            (Paths(config).teacher, "teacher"), (Paths(config).data(8), "images")))  # fmt: skip
        latents = artifacts.open_artifact(Paths(config).latents, "latents")
        pairs = pair_batches(latents, data, torch.device("cpu"))
        found = distill.teacher_pairs(config, made.network(load_denoiser), pairs, folder)
        rows = np.arange(len(found))
        if distributed.is_main_process():
            np.save(folder / f"seen-{distributed.world_size()}.npy", found.read(rows)[1].numpy())


@pytest.mark.longer
def test_processes_share_the_teachers_samples_and_a_stop_loses_none(tiny_config: Make) -> None:
    """The same bits in any number of processes; what is done stays."""
    settings = SMALL | {"invert.batch": 20}
    config, tree = tiny_config(**settings), tiny_tree(**settings)
    downsample.run(config, 8)
    teacher.run(config)
    invert.run(config)
    for world in (1, 2):
        folder = Path.cwd() / f"pairs-{world}"
        statuses = run_group(world, _sampled, tree, folder, folder=Path.cwd())
        assert statuses == [0] * world, log(Path.cwd())
    alone, shared = (np.load(f"pairs-{n}/seen-{n}.npy") for n in (1, 2))
    assert len(alone) == 128 and np.array_equal(alone, shared)
    assert len(np.unique(alone.reshape(128, -1), axis=0)) == 128
    marks, kept = Path("pairs-1/done"), np.load("pairs-1/samples.npy")
    done = np.fromfile(marks, np.uint32)
    assert len(done) == 7 and done.all()
    done[2] = 0  # stopped before its third batch; the first one is changed, to see that it stays
    kept[:20] = 7
    done[0] = zlib.crc32(np.ascontiguousarray(kept[:20]).data)
    done.tofile(marks)
    np.save("pairs-1/samples.npy", kept)
    _sampled(tree, Path("pairs-1"))
    again = np.load("pairs-1/seen-1.npy")
    assert np.array_equal(again[20:], alone[20:]) and (again[:20] == 7).all()


@pytest.mark.longer
def test_latents_belong_to_their_images_and_mirrors(tiny_config: Make) -> None:
    config = tiny_config(**SMALL | {"invert.images": 6, "invert.steps": 40, "invert.noise": 0.0})
    downsample.run(config, 8)
    teacher.run(config)
    invert.run(config)
    paths = Paths(config)
    data = artifacts.open_artifact(paths.data(8), "images")
    latents = artifacts.open_artifact(paths.latents, "latents")
    made = artifacts.open_artifact(paths.teacher, "teacher")
    flips, rows = latents.array("flips"), latents.array("indices")
    assert sorted(zip(rows, flips, strict=True)) == [(i, f) for i in range(6) for f in (0, 1)]
    images = data.array("train_images")[rows] / 127.5 - 1
    expected = np.where(flips[:, None, None, None] > 0, images[..., ::-1], images)
    labels = torch.tensor(latents.array("labels"))
    assert np.array_equal(labels, data.array("train_labels")[rows])
    grid = edm_grid(40, 0.002, 80.0, 7.0)
    x = torch.tensor(latents.array("latents")) * 80
    with torch.inference_mode():
        back = sample(load_denoiser(made.weights(), made.card()), x, grid, labels).numpy()
    distance = ((back[:, None] - expected[None]) ** 2).mean((2, 3, 4))
    assert np.array_equal(distance.argmin(1), np.arange(12))
    assert distance.diagonal().max() < 0.01


@pytest.mark.parametrize(
    "stage", [teacher.run, invert.run, distill.run, lambda c: grow.run(c, 8, 16)]
)
def test_a_missing_input_is_one_line(tiny_config: Make, stage: Callable[[Config], None]) -> None:
    with pytest.raises(PagodaError, match=r"runs/tiny/\S* is missing; 'dvc repro'"):
        stage(tiny_config(**SMALL))


@pytest.mark.slow
def test_a_guided_teacher_needs_to_know_images_without_a_class(tiny_config: Make) -> None:
    guided = SMALL | {"invert.guidance": 2.0, "distill.loss.regression": "noise_to_data"}
    config = tiny_config(**guided)
    downsample.run(config, 8)
    teacher.run(config)
    with pytest.raises(PagodaError, match=r"^invert.guidance = 2, but \S+ was trained with every"):
        invert.run(config)
    config = tiny_config(**guided | {"teacher.label_dropout": 0.2})
    teacher.run(config)
    invert.run(config)
    made = artifacts.open_artifact(Paths(config).latents, "latents")
    strong, evaluations = np.array(made.array("latents")), made.card()["nfe"]
    distill.run(config)
    assert all(np.isfinite(losses(config, "distill", "loss_dstl")))
    invert.run(tiny_config(**SMALL | {"teacher.label_dropout": 0.2}))
    plain = artifacts.open_artifact(Paths(config).latents, "latents")
    assert evaluations == 2 * plain.card()["nfe"]
    assert not np.array_equal(strong, plain.array("latents"))


GUIDED = SMALL | {"invert.guidance_max": 3.0, "distill.method": "guided", "grow.method": "guided",
                  "teacher.label_dropout": 0.2}  # fmt: skip


@pytest.mark.slow
def test_generators_that_are_told_the_weight_end_to_end(tiny_config: Make) -> None:
    config = tiny_config(**GUIDED)
    run_all(config)
    latents = artifacts.open_artifact(Paths(config).latents, "latents")
    weights, told = latents.array("weights"), latents.array("latents")
    assert (
        weights.min() >= 1
        and weights.max() <= 3
        and weights.std() == pytest.approx(2 / np.sqrt(12), abs=0.1)
    )
    for res, stage in ((8, "distill"), (16, "grow-16")):
        folder = Paths(config).generator(res)
        assert (folder / "estimator.safetensors").is_file()
        generator = pagoda.load(folder, "cpu")
        assert generator.card["told_weights"] == [1.0, 3.0]
        assert weight_of(generator.artifact, 2.0) == 2.0
        assert all(np.isfinite(losses(config, stage, "loss_rec")))
        plain, strong = (generator.sample([0], range(4), guidance=w) for w in (1.0, 3.0))
        assert plain.shape == (4, 3, res, res) and not np.array_equal(plain, strong)
        with pytest.raises(PagodaError, match=r"guidance = 5; .* weights from 1 to 3 \(1 is none"):
            generator.sample([0], range(4), guidance=5.0)
    assert len(losses(config, "distill", "loss_omega")) == len(losses(config, "distill", "loss"))
    assert not losses(config, "grow-16", "loss_omega")
    one_weight = GUIDED | {"invert.guidance": 3.0, "evaluate.guidance": 3.0}
    invert.run(tiny_config(**one_weight))
    strong = artifacts.open_artifact(Paths(config).latents, "latents").array("latents")
    one = {"invert.guidance": 3.0, "teacher.label_dropout": 0.2}
    invert.run(tiny_config(**SMALL | one))
    alone = artifacts.open_artifact(Paths(config).latents, "latents").array("latents")
    np.testing.assert_allclose(strong, alone, rtol=1e-4, atol=1e-5)
    assert np.abs(told - alone).max() > 0.01


def test_images_of_another_recipe_are_refused(tiny_config: Make) -> None:
    config = tiny_config(**SMALL)
    downsample.run(config, 8)
    teacher.run(config)
    invert.run(config)
    downsample.run(tiny_config(**SMALL | {"data.recipe": "lanczos"}), 8)
    with pytest.raises(PagodaError) as error:
        distill.run(config)
    line = str(error.value)
    assert "data/8 was cut by the recipe lanczos" in line and "latents by box" in line
    assert "\n" not in line and not Paths(config).generator(8).exists()


@pytest.mark.slow
def test_an_augmented_teacher_serves_the_later_stages(tiny_config: Make) -> None:
    config = tiny_config(**SMALL | {"teacher.augment": 0.5})
    run_all(config)
    assert all(np.isfinite(losses(config, "teacher", "loss")))
    card = artifacts.open_artifact(Paths(config).teacher, "teacher").card()
    assert card["unet"]["augment_labels"] == 9


@pytest.mark.parametrize("emulated", [True, False])
def test_bfloat16_without_instructions_is_said_by_the_stage_and_the_doctor(
    emulated: bool, tiny_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (train, device):
        monkeypatch.setattr(module, "emulates_bfloat16", lambda device: emulated)
    optim = tiny_config(**{"teacher.optim.precision": "bf16"}).teacher.optim
    train.check_device("teacher", optim, torch.device("cpu"))
    said = capsys.readouterr().err
    assert ("teacher.optim.precision = 'bf16': this processor" in said) == emulated
    assert said.count("\n") == emulated
    trained = {f"{key}.optim.precision": "bf16" for key in ("teacher", "text", "autoencoder")}
    for captions, named in (("none", ["teacher"]), ("short", ["teacher", "text"])):
        tree = tiny_tree(**trained, **{"text.captions": captions})
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), "utf-8")
        found = [f.remedy for f in examine(tmp_path / "params.yaml") if f.topic == "precision"]
        wanted = " ".join(f"-S {key}.optim.precision=fp32" for key in named)
        assert found == [wanted] * emulated


def test_the_instructions_are_those_of_the_processor() -> None:
    flags = Path("/proc/cpuinfo")
    if not flags.is_file() or platform.machine() != "x86_64":
        pytest.skip("no list of a processor's instructions here")
    known = set(flags.read_text("utf-8").split())
    there = bool(known & {"avx512_bf16", "amx_bf16"})
    assert device.emulates_bfloat16(torch.device("cpu")) != there
    assert not device.emulates_bfloat16(torch.device("cuda"))


def test_what_the_machine_cannot_do_is_one_line(
    tiny_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PagodaError, match=r"^teacher.optim.precision = 'fp16' needs a GPU"):
        teacher.run(tiny_config(**{"teacher.optim.precision": "fp16"}))
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(PagodaError, match=r"^teacher.optim.compile = true needs a C\+\+ compiler"):
        teacher.run(tiny_config(**{"teacher.optim.compile": True}))


def test_snapshots_go_into_the_artifact(tiny_config: Make) -> None:
    optim = {"teacher.optim.ema_profiles": [0.05, 0.1], "teacher.optim.ema_snapshots": 2,
             "teacher.optim.micro_batch": 20}  # fmt: skip
    config = tiny_config(**SMALL | optim)
    downsample.run(config, 8)
    teacher.run(config)
    made = artifacts.open_artifact(Paths(config).teacher, "teacher")
    names = [f"ema-{s}-{t:09d}.safetensors" for s in ("0.05", "0.1") for t in (4, 8)]
    assert set(names) <= set(made.manifest["files"]) and made.manifest["revision"]
    synthesise(made.path, 0.07, Path("made"))
    new = artifacts.open_artifact("made", "teacher", {"name": config.name})
    load_denoiser(new.weights(), new.card())
