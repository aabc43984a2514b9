"""The same stages on an autoencoder's codes: what is modelled, decoded, measured, and refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pagoda
from pagoda import artifacts
from pagoda.artifacts import open_artifact
from pagoda.config import Config, parse
from pagoda.config.paths import Paths
from pagoda.data.base import Arrays
from pagoda.data.pixels import seen, to_uint8
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.evaluation.features.base import Extractor, Features
from pagoda.evaluation.files import ArrayImages
from pagoda.evaluation.reconstruction import reconstruction_rows
from pagoda.models import Generator, Teacher
from pagoda.networks.autoencoder import autoencoder_beside, load_autoencoder
from pagoda.pipeline.stages import (
    autoencoder,
    encode,
    grow,
)
from pagoda.pipeline.stages.code import ROOT
from pagoda.pipeline.stages.compute import Untrained
from pagoda.pipeline.stages.counters import META
from pagoda.pipeline.stages.decoder import CALL, encoded
from pagoda.pipeline.stages.study_spec import load_study, variant_config
from pagoda.training.history import read_rows
from tests.group import log, run_group
from tests.pipeline.stages.whole import run_all
from tests.tiny import tiny_tree

LATENT: dict[str, Any] = {
    "data.space": "latent", "base_res": 16, "name": "latent", "data.train_images": 100,
    "data.test_images": 70, "autoencoder.optim.images": 32, "autoencoder.channels": 8,
    "autoencoder.feature_weight": 0.0, "features.images": 64, "teacher.optim.images": 64,
    "distill.optim.images": 32, "grow.optim.images": 32, "teacher.network.attention": [4],
    "invert.images": 32,
}  # fmt: skip
BASE, TOP = 16, 32


def config(**changes: Any) -> Config:
    return parse(tiny_tree(**LATENT | changes))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything up to the evaluation."""
    return run_all(tmp_path_factory.mktemp("latent"), config(), autoencoder.run, encode.run)


@pytest.fixture
def made(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to spoil, in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run_folder, tmp_path / "runs" / "latent")
    return tmp_path / "runs" / "latent"


def test_every_network_is_of_the_codes(run_folder: Path) -> None:
    shapes = {"teacher": "teacher", "gen/16": "generator", "gen/32": "generator"}
    for place, kind in shapes.items():
        unet = open_artifact(run_folder / "b16" / place, kind).card()["unet"]
        assert (unet["image_channels"], unet["resolution"]) == (4, BASE // 2)
    latents = open_artifact(run_folder / "b16/latents", "latents").array("latents")
    assert latents.shape == (64, 4, 8, 8)


def test_codes_are_of_images_and_of_their_mirror_images(run_folder: Path) -> None:
    codes = open_artifact(run_folder / "b16/codes/32", "codes")
    data = open_artifact(run_folder / "data/32", "images")
    network, stored = autoencoder_beside(codes), open_images(codes, "train")
    assert network is not None and stored.shape == (100, 2, 4, 16, 16)
    pixels = np.asarray(open_images(data, "train")[np.array([3, 70])])
    both = torch.from_numpy(stored[np.array([3, 70])])
    for flip in (0, 1):
        x = np.ascontiguousarray(pixels[..., ::-1] if flip else pixels)
        alone = encoded(network, x, torch.device("cpu"))
        assert torch.equal(seen(both, torch.full((2,), flip) > 0), alone)  # whatever beside


def test_encoding_that_was_stopped_goes_on_to_the_same_bits(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row of its history a batch; images and their mirror images count."""
    monkeypatch.setattr(encode, "_BATCH", CALL)  # two batches
    expected = open_artifact(made / "b16/codes/32", "codes").fingerprint
    history = Paths(config()).history("encode-32")
    shutil.rmtree(made / "b16/codes/32")
    whole, calls = encode._codes, 0

    def stops(*given: Any) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return whole(*given)

    monkeypatch.setattr(encode, "_codes", stops)
    with pytest.raises(KeyboardInterrupt):
        encode.run(config(), TOP)
    encode.run(config(), TOP)
    assert calls == 3
    assert open_artifact(made / "b16/codes/32", "codes").fingerprint == expected
    assert [json.loads(row)["images"] for row in read_rows(history)] == [2 * CALL, 200]
    assert not [p for p in Path(".scratch/encode-32").iterdir() if p.is_dir()]


def _encode() -> None:
    encode.run(config(), TOP)


@pytest.mark.longer
def test_processes_that_share_encoding_write_the_same_bits(made: Path, tmp_path: Path) -> None:
    expected = open_artifact(made / "b16/codes/32", "codes").fingerprint
    shutil.rmtree(made / "b16/codes/32")
    assert run_group(2, _encode, folder=tmp_path) == [0, 0], log(tmp_path)
    assert open_artifact(made / "b16/codes/32", "codes").fingerprint == expected


def test_statistics_make_codes_of_unit_size(run_folder: Path) -> None:
    """Over all training images of all resolutions: mean 0, deviation 0.5 a channel."""
    network = open_artifact(run_folder / "b16/autoencoder", "autoencoder").network(load_autoencoder)
    parts = []
    for side in (BASE, TOP):
        images = open_images(open_artifact(run_folder / f"data/{side}", "images"), "train")
        rows = range(0, len(images), CALL)
        z = torch.cat([encoded(network, np.asarray(images[i : i + CALL]), torch.device("cpu"))
                       for i in rows]).double()  # fmt: skip
        parts.append(torch.stack([z.mean((0, 2, 3)), z.square().mean((0, 2, 3))]))
    mean, square = torch.stack(parts).mean(0)
    torch.testing.assert_close(mean, torch.zeros(4, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(square.sqrt(), torch.full((4,), 0.5, dtype=torch.float64),
                               atol=1e-4, rtol=1e-4)  # fmt: skip


def test_a_loaded_generator_gives_decoded_images(run_folder: Path) -> None:
    g = pagoda.load(run_folder / "b16/gen/32")
    assert isinstance(g, Generator) and g.autoencoder is not None
    assert (g.base_res, g.resolution, g.latent_shape) == (BASE, TOP, (4, 8, 8))
    z = g.latents([0, 1])
    images = g(z, [1, 2])
    codes = g.network.generator(z, torch.tensor([1, 2]))
    assert torch.allclose(images, g.autoencoder.decode(codes))
    made = g.sample([1, 2], [0, 1])
    off = np.abs(made[[0, 3]].astype(int) - to_uint8(images).numpy())
    assert made.shape == (4, 3, TOP, TOP) and off.max() <= 1  # another number of images a call


def test_a_loaded_teacher_inverts_images_through_the_encoder(run_folder: Path) -> None:
    t = pagoda.load(run_folder / "b16/teacher")
    x = np.asarray(open_images(open_artifact(run_folder / "data/16", "images"), "train")[:2])
    assert isinstance(t, Teacher)
    z = t.invert(x, [0, 1])
    assert z.shape == (2, 4, 8, 8) and t(z, [0, 1]).shape == (2, 3, BASE, BASE)


def test_the_autoencoders_own_error_is_a_row_of_every_metric(run_folder: Path) -> None:
    rows = open_artifact(run_folder / "b16/evaluate/32", "evaluation").json("results")["rows"]
    by = {(row["generator"], row["metric"]): row for row in rows}
    for metric in ("fd", "recall", "precision"):
        assert by["autoencoder", metric]["protocol"] == by["grown", metric]["protocol"]
    own = {metric for generator, metric in by if generator == "autoencoder"}
    assert {"psnr", "ssim", "fd_reconstruction", "feature_distance"} <= own
    assert by["autoencoder", "fd"]["value"] >= by["real", "fd"]["value"]


def test_a_base_that_the_window_of_ssim_does_not_fit_has_no_ssim() -> None:
    images = ArrayImages(Arrays("x", np.random.default_rng(0).integers(
        0, 256, (12, 3, 8, 8), dtype=np.uint8), "x"), np.arange(12))  # fmt: skip
    mean = Extractor("means", "custom", 3, None, None, {}, "", lambda x, _: Features(
        torch.from_numpy(x.mean((2, 3), dtype=np.float32))), 4)  # fmt: skip
    facts = {"seed": 0, "resolution": 8, "revision": "r", "device": "cpu"}
    rows = reconstruction_rows(images, images, mean, facts)
    assert [row.metric for row in rows] == ["psnr", "fd_reconstruction", "feature_distance"]


@pytest.mark.parametrize("changes", [LATENT, {"text.captions": "short", "target_res": 16}])
def test_a_cascade_of_anything_but_images_of_classes_is_refused(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    study = load_study("growth_baselines")
    with pytest.raises(PagodaError, match="variant cascade: a cascade is of images of classes"):
        variant_config(parse(tiny_tree(**changes)), study, study.variants["cascade"], 0)


def test_means_of_codes_are_the_other_pyramid(made: Path) -> None:
    c = config(**{"autoencoder.pyramid": "codes"})
    encode.run(c, BASE)
    low, high = (open_artifact(made / f"b16/codes/{r}", "codes").array("train_images")
                 for r in (BASE, TOP))  # fmt: skip
    squares = high.reshape(100, 2, 4, 8, 2, 8, 2).mean((4, 6))
    np.testing.assert_allclose(low, squares, atol=1e-5)


def test_codes_of_another_autoencoder_are_refused_by_their_fingerprints(made: Path) -> None:
    first = open_artifact(made / "b16/codes/32", "codes").card()["autoencoder"]["fingerprint"]
    c = dataclasses.replace(config(), seed=5)
    autoencoder.run(c)
    encode.run(c, TOP)
    second = open_artifact(made / "b16/autoencoder", "autoencoder").fingerprint
    with pytest.raises(PagodaError) as caught:
        grow.run(c, BASE, TOP)
    assert first[:12] in str(caught.value) and second[:12] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"autoencoder.factor": 8}, "base_res = 16; it must be a multiple of autoencoder.factor"),
        ({"teacher.network.lowest_res": 16}, "at most 8, base_res = 16 over autoencoder.factor"),
        ({"teacher.augment": 0.1}, "teacher.augment = 0.1; it must be 0 while data.space"),
        ({"invert.clamp": True}, "invert.clamp = True; it must be false while"),
        ({"grow.discriminator.kind": "projected"}, "grow.discriminator.kind = 'projected'"),
        ({"distill.discriminator.kind": "tokens"}, "distill.discriminator.kind = 'tokens'"),
        ({"distill.loss.distance": "lpips"}, "distill.loss.distance = 'lpips'"),
        ({"distill.imported": "weights/x"}, "distill.imported = 'weights/x'"),
        ({"data.space": "hidden"}, "data.space = 'hidden'"),
    ],
)
def test_what_codes_do_not_allow_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PagodaError) as caught:
        config(**changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", ["distill", "grow-32"])
def test_networks_of_codes_may_be_told_the_weight(stage: str) -> None:
    """A whole step of discriminator, estimator and generator has the shapes of codes."""
    c = config(**{"invert.guidance_max": 3.0, "distill.method": "guided", "grow.method": "guided",
                  "teacher.label_dropout": 0.2})  # fmt: skip
    told = Untrained(c, 10, 100, META).training(stage)
    assert told > Untrained(config(), 10, 100, META).training(stage)


def test_the_space_of_pixels_takes_none_of_it() -> None:
    tree = tiny_tree()
    assert tree["space"]["modelled"] == "data"
    assert tree["space"]["autoencoder"] == tree["space"]["encode"] == []
    assert parse(tiny_tree(**{"autoencoder.factor": 8})).factor == 1


def test_an_imported_autoencoder_of_another_size_is_refused(made: Path) -> None:
    shutil.copytree(made / "b16/autoencoder", made / "other")
    changes = {"autoencoder.imported": str(made / "other")}
    autoencoder.run(config(**changes))
    for other, words in (
        ({"autoencoder.factor": 4}, "factor of this autoencoder is 2"),
        ({"autoencoder.latent_channels": 3}, "number of channels of this autoencoder is 4"),
    ):
        with pytest.raises(PagodaError, match=words):
            autoencoder.run(config(**changes | other))


def test_a_quarter_a_side_is_a_sixteenth_of_the_teachers_compute() -> None:
    """Counted on real networks of equal widths, but that stem and head see 4 channels."""
    plain = {"target_res": 64, "data.render_res": 64, "teacher.network.attention": [],
             "teacher.network.channel_mult": [1, 1, 1], "base_res": 64}  # fmt: skip
    pixel = parse(tiny_tree(**plain, **{"teacher.network.lowest_res": 16}))
    codes = parse(tiny_tree(**plain, **{
        "data.space": "latent", "autoencoder.factor": 4, "teacher.network.lowest_res": 4,
    }))  # fmt: skip
    flops = [Untrained(c, 10, 100, META).training("teacher") for c in (pixel, codes)]
    assert flops[0] / flops[1] == pytest.approx(16, rel=0.1)


def test_an_exported_generator_of_codes_stands_alone(made: Path, tmp_path: Path) -> None:
    from pagoda.pipeline.stages.export import Request
    from pagoda.pipeline.stages.export import run as export

    export(Request(str(made / "b16/gen/32"), tmp_path / "out"))
    samples = pagoda.load(made / "b16/gen/32").sample([1], [0])
    shutil.rmtree(made)
    assert np.array_equal(pagoda.load(tmp_path / "out").sample([1], [0]), samples)
    manifest = artifacts.peek(tmp_path / "out", "generator").manifest
    assert "autoencoder.safetensors" in manifest["files"]
