"""Text-to-image pipelines in use: diffusers' own images, inversion, batches, and bad input."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pagoda
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import sample
from pagoda.pipeline.stages.sample import Request
from pagoda.pipeline.stages.score_text import Texts, TextScores
from pagoda.text_to_image.folder import Folder
from tests.hub_server import local_hub
from tests.test_hub import TRY, program
from tests.text_to_image.pipelines import LENGTH, WORDS

Pipelines = dict[str, tuple[Path, Any]]


@pytest.fixture(scope="module")
def models(pipelines: Pipelines) -> dict[str, pagoda.TextToImage]:
    return {name: pagoda.load_diffusers(folder, "cpu") for name, (folder, _) in pipelines.items()}


Models = dict[str, pagoda.TextToImage]


def near(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.std() > 0.01 and (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_scored_images_are_those_of_the_prompts_and_their_seeds(
    pipelines: Pipelines, models: Models, tmp_path: Path
) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("\n".join(WORDS), encoding="utf-8")
    texts = Texts(file, guidance=2.0, steps=2)
    scores = TextScores(texts, None, 1, torch.device("cpu"))
    made = scores.model(f"diffusers:{pipelines['sd'][0]}", 0, 1)
    alone = models["sd"].sample(WORDS[2], [2], steps=2, guidance=2.0)
    assert np.array_equal(made.read(np.array([2])), alone)
    assert len(made) == len(WORDS) and made.nfe == models["sd"].evaluations(steps=2, guidance=2.0)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_images_of_stable_diffusion_are_those_of_its_pipeline(
    models: Models, pipelines: Pipelines, guidance: float
) -> None:
    t, pipe = models["sd"], pipelines["sd"][1]
    z, prompts = t.latents([0, 5]), list(WORDS[1:3])
    theirs = pipe(prompts, latents=z, num_inference_steps=4, guidance_scale=guidance,
                  output_type="pt").images  # fmt: skip
    times = pipe.scheduler.timesteps.tolist()
    ours = t(z, prompts, times=times, solver="euler", guidance=guidance)
    near((ours / 2 + 0.5).clamp(0, 1), theirs)


def test_images_of_lcm_are_those_of_its_pipeline(models: Models, pipelines: Pipelines) -> None:
    t, pipe = models["lcm"], pipelines["lcm"][1]
    z, prompts = t.latents([0, 5]), list(WORDS[1:3])
    for how, theirs in (({"guidance": 4.0}, {"guidance_scale": 4.0}), ({}, {})):
        made = pipe(prompts, latents=z, num_inference_steps=1, output_type="pt", **theirs).images
        near((t(z, prompts, steps=1, **how) / 2 + 0.5).clamp(0, 1), made)
    assert t.evaluations() == 4 and t.evaluations(steps=1, guidance=2.0) == 1
    images = t.sample(prompts[0], [0, 5])  # four steps, with noise of the seeds between them
    np.testing.assert_array_equal(t.sample(prompts[0], 5)[0], images[1])
    assert (images[0] != images[1]).any()
    with pytest.raises(PagodaError, match="is a consistency model"):
        t.invert(images, prompts[0])


def test_embeddings_are_those_of_the_pipelines(models: Models, pipelines: Pipelines) -> None:
    for name, options in (("sd", ("cpu", 1, True)), ("if", (True,))):
        t, theirs = models[name], pipelines[name][1].encode_prompt(WORDS[0], *options)
        near(t.read(WORDS[0]).states, theirs[0])
        near(t.encoder([""]).states, theirs[1])
    assert (
        models["if"]
        .read("  A Small GREEN star ")
        .states.equal(models["if"].read("a small green star").states)
    )


def test_an_image_is_a_function_of_prompt_and_seed(models: Models) -> None:
    t = models["if"]
    many = t.sample(WORDS[1:], [3, 1, 8], steps=2, guidance=3.0)
    assert many.shape == (9, 3, 8, 8) and many.dtype == np.uint8 and len(np.unique(many)) > 9
    np.testing.assert_array_equal(t.sample(WORDS[2], 1, steps=2, guidance=3.0)[0], many[4])
    t.batch = 4
    try:
        fewer_calls = t.sample(WORDS[1:], [3, 1, 8], steps=2, guidance=3.0)
        assert np.abs(fewer_calls.astype(int) - many).max() <= 1
        np.testing.assert_array_equal(
            t.sample(WORDS[2], [1], steps=2, guidance=3.0), fewer_calls[4:5]
        )
    finally:
        t.batch = 1


def test_one_step_is_the_denoiser_at_the_largest_level(models: Models) -> None:
    t = models["sd"]
    z, top = t.latents([2]), t.schedule.sigma_max
    states = t.read(WORDS[0]).states
    with torch.no_grad():
        clean = t.denoiser((1 + top**2) ** 0.5 * z, torch.tensor([top]).double(), states)
        near(t(z, WORDS[0], steps=1), t.decode(clean))
    assert t.evaluations(steps=1) == 1 and t.evaluations(steps=5, guidance=2.0) == 18


def test_inversion_and_back(models: Models) -> None:
    """Pixels there and back, and latents: on a finer grid they come back nearer."""
    t = models["if"]
    x = torch.from_numpy(t.sample(WORDS[0], range(2), steps=4))
    z = t.invert(x, WORDS[0], steps=12)
    assert z.shape == t.latents([0, 1]).shape and 0.2 < z.std() < 5
    off = (t(z, WORDS[0], steps=12) - x / 127.5 + 1).square().mean().sqrt()
    assert off < 0.05
    again = t.invert(x[1:], WORDS[0], steps=12)
    np.testing.assert_array_equal(again, z[1:])
    noisy = [t.invert(x, WORDS[0], steps=2, noise=0.1, keys=k) for k in ([0, 1], [0, 2])]
    assert noisy[0][0].equal(noisy[1][0]) and not noisy[0][1].equal(noisy[1][1])
    latent = models["sd"].invert(torch.zeros(1, 3, 16, 16), WORDS[0], steps=2, solver="euler")
    assert latent.shape == (1, 4, 8, 8) and latent.isfinite().all()


Call = Callable[[pagoda.TextToImage], Any]
NOTHING = np.zeros((1, 3, 16, 16))
BAD: list[tuple[str, str, Call]] = [
    ("sd", "sigma = 80 is outside.*0.02917 to 14.6146", lambda t: t.sample("a", sigma_max=80.0)),
    ("sd", "sigma = 0.01 is outside", lambda t: t.invert(NOTHING, "a", noise=0.01)),
    ("if", "sigma = 30000 is outside", lambda t: t.sample("a", sigma_max=3e4)),
    ("if", "0 to 999", lambda t: t.sample("a", times=[1000])),
    ("if", "they must fall", lambda t: t.sample("a", times=[3, 5])),
    ("if", "or steps", lambda t: t.sample("a", times=[5, 3], steps=2)),
    ("if", "whole number from 1", lambda t: t.sample("a", steps=0)),
    ("if", "one of heun, euler", lambda t: t.sample("a", solver="ddim")),
    ("if", "no setting 'cfg'; there are steps, guidance", lambda t: t.sample("a", cfg=7)),
    ("if", "1 is none", lambda t: t.sample("a", guidance=float("nan"))),
    ("if", "prompt 2 is empty", lambda t: t.sample(["a", " "])),
    ("if", "no prompt is given", lambda t: t.sample([])),
    ("if", "no seed is given", lambda t: t.sample("a", [])),
    ("if", r"takes \(n, l, 32\)", lambda t: t.sample(torch.zeros(1, 77, 768))),
    ("if", "2 prompts do not go with 3", lambda t: t(t.latents(range(3)), ["a", "b"])),
    ("if", r"takes \(n, 3, 8, 8\)", lambda t: t(torch.zeros(1, 3, 16, 16), "a")),
    ("sd", "16 pixels a side", lambda t: t.invert(np.zeros((1, 3, 8, 8)), "a")),
    ("lcm", "takes 1 to 50", lambda t: t.sample("a", steps=51)),
    ("lcm", "its own noise level", lambda t: t.sample("a", sigma_max=10.0)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "said", "call"), BAD)
def test_bad_input_is_one_line(models: Models, name: str, said: str, call: Call) -> None:
    with pytest.raises(PagodaError, match=said) as caught:
        call(models[name])
    assert "\n" not in str(caught.value)


def test_a_prompt_that_is_too_long_is_said_to_be_cut(models: Models) -> None:
    t, long = models["sd"], "a red circle " * 9
    with pytest.warns(UserWarning, match=f"prompt 2 has .* reads {LENGTH}: .* after '.*a red circ"):
        t.sample(["a", long], 0, steps=1)
    assert t.read(long).states.equal(t.read(long + "and a star").states)
    assert not t.read(long).states.equal(t.read("and " + long).states)
    assert t.read("a red circle").cut == ()


def copied(pipelines: Pipelines, name: str, tmp_path: Path) -> Path:
    return shutil.copytree(pipelines[name][0], tmp_path / "copy")


def test_embeddings_do_without_a_text_encoder(pipelines: Pipelines, tmp_path: Path) -> None:
    """As a pipeline that was saved without one; missing files of one are named."""
    folder, whole = copied(pipelines, "if", tmp_path), pagoda.load_diffusers(pipelines["if"][0])
    (folder / "text_encoder/model.safetensors").unlink()
    with pytest.raises(
        PagodaError, match=r"no .*text_encoder/model.safetensors, which prompts.*hf"
    ):
        pagoda.load_diffusers(folder).sample("a")
    index = json.loads((folder / "model_index.json").read_text())
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / part)
        index[part] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    t = pagoda.load_diffusers(folder)
    with pytest.raises(PagodaError, match=r"is without tokenizer/.*or give embeddings"):
        t.sample("a")
    states = whole.read("a").states
    made = t.sample(states, 1, steps=2)
    np.testing.assert_array_equal(made, whole.sample("a", 1, steps=2))
    with pytest.raises(PagodaError, match="set 'empty'"):
        t.sample(states, 1, steps=2, guidance=3.0)
    t.denoiser.empty = whole.encoder([""]).states
    made = t.sample(states, 1, steps=2, guidance=3.0)
    np.testing.assert_array_equal(made, whole.sample("a", 1, steps=2, guidance=3.0))


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), encoding="utf-8")


def test_folders_that_are_not_whole_or_something_else(pipelines: Pipelines, tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match=r"no pipeline of diffusers: it has no model_index.json"):
        pagoda.load_diffusers(tmp_path)
    weights, config = "diffusion_pytorch_model.safetensors", "config.json"
    damages: list[tuple[str, Callable[[Path], Any]]] = [
        ("'FluxPipeline'; pagoda reads Stable", lambda f: edit(f / "model_index.json",
                                                               _class_name="FluxPipeline")),
        ("'Evil'; pagoda reads UNet2D", lambda f: edit(f / "model_index.json", unet=["x", "Evil"])),
        ("has auto_map", lambda f: edit(f / "unet" / config, auto_map={"AutoModel": "evil.Model"})),
        ("makes no UNet2DConditionModel", lambda f: (f / "unet" / weights).write_bytes(b"x" * 99)),
        ("are not those of its config|makes no UNet2D",
         lambda f: edit(f / "unet" / config, block_out_channels=[4, 16])),
        ("no .*vae/diffusion_pytorch_model.safetensors, which the pipeline needs",
         lambda f: (f / "vae" / weights).unlink()),
        ("holds diffusion_pytorch_model.bin .* a pickle can run code",
         lambda f: (f / "unet" / weights).rename(f / "unet/diffusion_pytorch_model.bin")),
        ("names evil.bin, which is no safetensors", lambda f: (
            f / "unet" / f"{weights}.index.json").write_text('{"weight_map": {"a": "evil.bin"}}')),
        ("cannot be read as JSON", lambda f: (f / "unet" / config).write_text("{")),
        ("predicts 'flow'", lambda f: edit(f / "scheduler/scheduler_config.json",
                                           prediction_type="flow")),
    ]  # fmt: skip
    for said, damage in damages:
        folder = copied(pipelines, "sd", tmp_path)
        damage(folder)
        with pytest.raises(PagodaError, match=said) as caught:
            pagoda.load_diffusers(folder)
        assert "\n" not in str(caught.value)
        shutil.rmtree(folder)


def test_weights_of_nan_are_refused(pipelines: Pipelines, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(pipelines, "sd", tmp_path)
    file = folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["conv_in.weight"][0, 0, 0, 0] = torch.nan
    save_file(weights, file)
    with pytest.raises(PagodaError, match="NaN or infinity"):
        pagoda.load_diffusers(folder)


def test_the_command_samples_prompts(
    pipelines: Pipelines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    source = f"diffusers:{pipelines['lcm'][0]}"
    Path("prompts.txt").write_text(f"{WORDS[0]}\n\n{'a red circle ' * 9}\n", encoding="utf-8")
    sample.run(Request(source, Path("made"), seeds="0-1", steps=2, prompts="prompts.txt"))
    assert "prompt 2 has" in capsys.readouterr().err
    listed = json.loads(Path("made/samples.json").read_text(encoding="utf-8"))
    assert listed["classes"]["0"] == WORDS[0] and listed["nfe"] == 2 and listed["guidance"] == 8.5
    sample.run(Request(source, Path("x.npz"), seeds="1", steps=2, prompts=WORDS[0]))
    t = pagoda.load_diffusers(pipelines["lcm"][0])
    made = np.load("x.npz")["arr_0"].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(made, t.sample(WORDS[0], 1, steps=2))
    sample.run(Request(source, Path("x.png"), seeds="1", steps=1, prompts=WORDS[0]))
    for said, options in (
        ("needs --prompts", {}),
        ("none.txt is missing", {"prompts": "none.txt"}),
        ("--interval and --guide are of", {"prompts": "a", "classes": "0"}),
        ("fewer seeds or prompts", {"prompts": "prompts.txt", "seeds": "0-5000000"}),
    ):
        with pytest.raises(PagodaError, match=said):
            sample.run(Request(source, Path("y.npz"), **options))  # type: ignore[arg-type]
    with pytest.raises(PagodaError, match="there is no folder runs/x"):
        sample.run(Request("runs/x", Path("y.npz"), prompts="a"))
    assert not Path("y.npz").exists()


@pytest.mark.longer
def test_only_what_is_read_comes_from_the_hub(tmp_path: Path) -> None:
    files = {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
             "tokenizer/merges.txt", "text_encoder/model.safetensors.index.json"}  # fmt: skip
    more = {"v1-5.ckpt", "v1-5.safetensors", "unet/diffusion_pytorch_model.bin", "unet/evil.py",
            "vae/diffusion_pytorch_model.fp16.safetensors", "else/a.safetensors"}  # fmt: skip
    code = "from pagoda.text_to_image.folder import find\n" + TRY
    listing = "print(*sorted(str(f.relative_to(p)) for f in p.rglob('*') if f.is_file()))\n"
    with local_hub() as hub:
        hub.files["me/sd"] = {name: name.encode() for name in files | more}
        hub.files["me/other"] = {"a.json": b"{}"}
        made = program(tmp_path, hub, f'{code}p = find("me/sd")\n{listing}tried(find, "me/other")')
    listed, line = made.splitlines()
    assert set(listed.split()) == files
    assert "me/other of the hub is no pipeline of diffusers: it has no model_index.json" in line


def test_without_the_packages_it_is_one_line(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(PagodaError, match="uv sync --extra diffusers"):
        pagoda.load_diffusers(pipelines["sd"][0])


@pytest.mark.parametrize(
    ("missing", "part"), [("diffusers", "scheduler"), ("transformers", "tokenizer")]
)
def test_a_package_that_is_missing_is_no_fault_of_the_folder(
    pipelines: Pipelines, missing: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    folder = Folder(pipelines["sd"][0])
    with pytest.raises(PagodaError, match=rf"^a pipeline of diffusers needs the package {missing}"):
        getattr(folder, part)()
