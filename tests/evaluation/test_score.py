"""``pagoda evaluate --images`` and ``pagoda reference --images`` as functions, end to end."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pagoda
from pagoda import artifacts
from pagoda.errors import PagodaError
from pagoda.evaluation import streaming
from pagoda.evaluation.files import open_images
from pagoda.evaluation.metrics import frechet
from pagoda.evaluation.metrics.base import Settings
from pagoda.evaluation.metrics.fd_infinity import frechet_infinity
from pagoda.evaluation.metrics.frechet import frechet_distance_of_features
from pagoda.evaluation.metrics.inception_score import inception_score, probabilities_of
from pagoda.evaluation.metrics.kid import kernel_distance_of_subsets
from pagoda.evaluation.metrics.mmd import gaussian_mmd
from pagoda.evaluation.metrics.precision_recall import manifold_scores
from pagoda.evaluation.metrics.statistics import feature_moments
from pagoda.networks.generator import Generator
from pagoda.networks.unet import UNetSpec
from pagoda.pipeline.stages import score
from pagoda.pipeline.stages.score import Features, Source
from pagoda.results.evaluations import evaluations_table
from tests.evaluation.features.stand_ins import publish, write_inception
from tests.evaluation.pictures import pictures, write_folder, write_zip
from tests.evaluation.requests import CUSTOM, NET, SMALL, embedded, request, values


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "scorenet.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_zip(tmp_path / "real.zip", pictures(90, seed=1))
    write_folder(tmp_path / "made", pictures(70, seed=2))
    return tmp_path


def test_few_images_are_scored_from_their_features(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 images of 12-d features: their covariance, which is singular, is not factored."""
    few = pictures(9, seed=2)
    write_folder(folder / "few", few)
    (real, _), (made, _) = embedded(pictures(90, seed=1)), embedded(few)
    expected = frechet_distance_of_features(real, made)
    monkeypatch.setattr(frechet, "covariance_factor", None)
    found = values(score.run(request(source=Source(Path("few")), metrics="fd")))
    assert found["fd"] == pytest.approx(expected, rel=1e-4)


def test_values_are_those_of_a_plain_computation(folder: Path) -> None:
    """Every metric again from features made all at once; the file holds the same rows."""
    made = pictures(70, seed=2)[[*range(0, 70, 2), *range(1, 70, 2)]]
    real, _ = embedded(pictures(90, seed=1))
    features, logits = embedded(made)
    tree = score.run(request())
    found = values(tree)
    assert found["fd"] == pytest.approx(frechet_distance_of_features(real, features), rel=1e-4)
    kernel, _ = kernel_distance_of_subsets(real, features, 5, 20)
    assert found["kd"] == pytest.approx(kernel, rel=1e-3)
    manifold = manifold_scores(real, features, 3)
    for name in ("precision", "recall", "density", "coverage"):
        assert found[name] == pytest.approx(getattr(manifold, name), abs=0.02)
    sharpness, _ = inception_score(probabilities_of(logits), 2, 2020)
    assert found["classifier_score"] == pytest.approx(sharpness, rel=1e-4)
    assert json.loads(Path("out.json").read_text(encoding="utf-8")) == tree
    names = [row["protocol"] for row in tree["rows"]] if tree else []
    assert names[:3] == ["fd_custom_scorenet_embed_70", "kd_custom_scorenet_embed_70_s5_m20",
                         "precision_custom_scorenet_embed_70_k3"]  # fmt: skip


def test_means_over_subsets_and_splits_keep_their_deviation(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the row, the file and the printed line; what is no such mean has none."""
    made = pictures(70, seed=2)[[*range(0, 70, 2), *range(1, 70, 2)]]
    (real, _), (features, logits) = embedded(pictures(90, seed=1)), embedded(made)
    tree = score.run(request(metrics="fd,kd,score,score_adm"))
    assert tree is not None and json.loads(Path("out.json").read_text(encoding="utf-8")) == tree
    _, kernel = kernel_distance_of_subsets(real, features, 5, 20)
    _, splits = inception_score(probabilities_of(logits), 2, 2020)
    assert ["sd" in row for row in tree["rows"]] == [False, True, True, False]  # ADM's: one split
    assert tree["rows"][1]["sd"] == pytest.approx(kernel, rel=1e-3)
    assert tree["rows"][2]["sd"] == pytest.approx(splits, rel=1e-3)
    lines = capsys.readouterr().out.splitlines()
    shown = [f"sd {row['sd']:.3g}" if "sd" in row else "" for row in tree["rows"]]
    assert all(text in line for text, line in zip(shown, lines, strict=True))
    assert ["sd" in line.split() for line in lines] == [False, True, True, False]


def test_extrapolation_and_discrepancy_are_those_of_the_features(folder: Path) -> None:
    made = pictures(70, seed=2)[[*range(0, 70, 2), *range(1, 70, 2)]]
    real, _ = embedded(pictures(90, seed=1))
    features, _ = embedded(made)
    small = dataclasses.replace(SMALL, mmd_width=2)
    found = score.run(request(metrics="fd_inf,mmd", settings=small))
    assert found is not None
    line = frechet_infinity(feature_moments(real), features)
    assert values(found)["fd_inf"] == pytest.approx(line.value, rel=1e-3)
    assert values(found)["mmd"] == pytest.approx(gaussian_mmd(real, features, 2), rel=1e-3)
    assert [(row["protocol"], row["reference_n"]) for row in found["rows"]] == [
        ("fd_inf_custom_scorenet_embed_70_p15", 90), ("mmd_custom_scorenet_embed_70_w2", 90),
    ]  # fmt: skip


def test_only_clip_makes_a_cmmd(folder: Path) -> None:
    """The name of the extractor says so; features are brought to unit length."""
    Path("clip.py").write_text(NET, encoding="utf-8")
    clip = dataclasses.replace(CUSTOM, extractor="custom:clip:embed")
    (row,) = (score.run(request(features=clip, metrics="cmmd")) or {"rows": []})["rows"]
    sets = (embedded(pictures(n, seed=s))[0] for n, s in ((90, 1), (70, 2)))
    real, found = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in sets)
    assert row["protocol"] == "cmmd_custom_clip_embed_70_w10" and row["metric"] == "cmmd"
    assert row["value"] == pytest.approx(gaussian_mmd(real, found), rel=1e-3)
    with pytest.raises(PagodaError, match=r"a name for CLIP's features only.* called mmd"):
        score.run(request(metrics="cmmd"))


def test_intervals_hold_their_values_and_name_their_method(folder: Path) -> None:
    asked = request(metrics="fd,kd,prdc", intervals=True)
    plain, tree = score.run(dataclasses.replace(asked, intervals=False)), score.run(asked)
    assert plain is not None and tree is not None
    rows = {row["metric"]: row for row in tree["rows"]}
    assert values(tree) == values(plain) and "low" not in plain["rows"][0]
    methods = {name: row.get("interval") for name, row in rows.items()}
    assert methods == {
        "fd": "influence_95", "kd": None, "precision": "wilson_95", "recall": "jackknife_95",
        "density": "student_95", "coverage": "jackknife_95",
    }  # fmt: skip
    for row in rows.values():
        if "interval" in row:
            assert row["low"] <= row["value"] <= row["high"] and row["low"] < row["high"]
    few = score.run(request(metrics="fd", intervals=True, n=12))  # n = d: no influence
    assert few is not None and "interval" not in few["rows"][0]
    assert evaluations_table([Path("out.json")]).rows


def test_a_reference_artifact_gives_the_values_of_its_images(folder: Path) -> None:
    direct = score.run(request())
    score.make_reference(Source(Path("real.zip")), CUSTOM, None, 10_000, False, Path("ref"))
    kept = score.run(request(reference=Path("ref")))
    assert values(direct) == values(kept)
    card = artifacts.open_artifact("ref", "reference").card()
    assert (card["n"], card["resolution"], card["recipe"]) == (90, 24, "none")
    score.make_reference(Source(Path("real.zip")), CUSTOM, 50, 30, False, Path("ref"))  # replaces
    assert artifacts.open_artifact("ref", "reference").card()["identity"] != card["identity"]


def test_turned_photographs_go_with_turned_references(folder: Path) -> None:
    """A set and its copy that EXIF turns are at distance 0; rules are never mixed."""
    lying = Image.Exif()
    lying[0x0112] = 6
    for kind in ("upright", "phone"):
        (folder / kind).mkdir()
    for i, pixels in enumerate(pictures(30, seed=1)):
        Image.fromarray(pixels).save(f"upright/{i}.png")
        Image.fromarray(np.rot90(pixels)).save(f"phone/{i}.png", exif=lying)
    np.savez("upright.npz", arr_0=pictures(30, seed=1)[sorted(range(30), key=str)])
    phone, upright = Source(Path("phone"), exif=True), Source(Path("upright"))
    asked = request(source=phone, reference=Path("upright"), metrics="fd")
    direct = score.run(asked)
    score.make_reference(phone, CUSTOM, None, 30, False, Path("turned"))
    score.make_reference(upright, CUSTOM, None, 30, False, Path("plain"))
    kept = [score.run(dataclasses.replace(asked, source=source, reference=Path("turned")))
            for source in (phone, Source(Path("upright.npz")))]  # fmt: skip
    for tree in (direct, *kept):
        assert tree is not None and tree["rows"][0]["value"] == pytest.approx(0, abs=1e-6)
        assert tree["reference"]["exif"] is True
    assert direct is not None and direct["images"][0]["exif"] is True
    lain = score.run(dataclasses.replace(asked, source=Source(Path("phone"))))
    assert lain is not None and lain["rows"][0]["value"] > 1 and "exif" not in lain["reference"]
    for source, reference, advice in ((upright, "turned", "give"), (phone, "plain", "leave")):
        with pytest.raises(
            PagodaError, match=f"{reference} was made of images .*; {advice} --exif"
        ):
            score.run(dataclasses.replace(asked, source=source, reference=Path(reference)))


def _one_of(task: str, rank: int, count: int, port: int, out: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank),
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    if task == "reference":
        score.make_reference(Source(Path("real.zip")), CUSTOM, None, 40, False, out / "ref")
    else:
        score.run(request(out=out / "rows.json", metrics="fd,kd,prdc,score"))


def _run_shared(count: int) -> Path:
    """Both commands, each in a group of its own, as a launcher starts them."""
    out, context = Path(f"by{count}"), multiprocessing.get_context("fork")
    for task in ("reference", "rows"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = [(task, rank, count, port, out) for rank in range(count)]
        started = [context.Process(target=_one_of, args=a) for a in arguments]
        for process in started:
            process.start()
        for process in started:
            process.join(120)
        assert [process.exitcode for process in started] == [0] * count
    return out


@pytest.mark.longer
def test_several_processes_give_the_same_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes, more of them than whole rounds of blocks: 90 images in blocks of 16."""
    monkeypatch.setattr(streaming, "BLOCK", 16)
    alone, *shared = (_run_shared(count) for count in (1, 2, 3))
    for out in shared:
        assert (out / "rows.json").read_bytes() == (alone / "rows.json").read_bytes()
        prints = [artifacts.open_artifact(o / "ref", "reference").fingerprint for o in (alone, out)]
        assert prints[0] == prints[1]


def _write_generator(path: Path) -> None:
    torch.manual_seed(0)
    spec = UNetSpec(resolution=8, channels=16, channel_mult=(1,), blocks=1,
                    attention=(), head_channels=16, dropout=0.0, time_scale=1.0,
                    num_classes=5)  # fmt: skip
    network = Generator(spec, [], sigma_max=80.0, sigma_data=0.5, output_scale=1.0)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    with artifacts.create(path, "generator", config={"name": "x"}) as out:
        artifacts.save_model(out, network, network.card())


def test_one_call_measures_files_arrays_and_generators(folder: Path) -> None:
    """``pagoda.evaluate`` gives the command's values, whatever holds the images."""
    told = score.run(request(metrics="fd,kd,precision"))
    assert told is not None
    wanted = {row["protocol"]: row["value"] for row in told["rows"]}
    how: dict[str, Any] = {"metrics": ["fd", "kd", "precision"], "settings": SMALL, "batch": 16}
    how["extractor"] = CUSTOM.extractor
    assert pagoda.evaluate("made", "real.zip", **how) == wanted
    made = open_images(Path("made")).read(np.arange(70))
    real = open_images(Path("real.zip")).read(np.arange(90))
    assert pagoda.evaluate(made, torch.from_numpy(real), **how) == wanted
    assert pagoda.evaluate(made.transpose(0, 2, 3, 1), Path("real.zip"), **how) == wanted
    one, other = made[:, :1], real[:, :1]
    expected = pagoda.evaluate(one.repeat(3, 1), other.repeat(3, 1), **how)
    assert pagoda.evaluate(one[:, 0], other[:, 0], **how) == expected

    _write_generator(Path("gen"))
    write_zip(Path("small.zip"), pictures(60, 8))
    how |= {"metrics": "fd", "n": 40, "seed": 5}
    of_folder = pagoda.evaluate("gen", "small.zip", **how)
    opened = pagoda.load("gen", device="cpu")
    opened.batch = how["batch"]  # of the command: images have the same bits
    assert pagoda.evaluate(opened, "small.zip", **how) == of_folder
    for wrong, line in (
        ((opened, "small.zip"), "n says how many"),
        ((made, "nowhere"), "there is no nowhere"),
        ((made / 255, "small.zip"), "images is float64"),
        ((made[:0], "small.zip"), "an array without images"),
        ((made[0], "small.zip"), r"images is ndarray of shape \(3, 24, 24\); it is a path, or an"),
        ((None, "small.zip"), "images is NoneType"),
    ):
        with pytest.raises(PagodaError, match=line):
            pagoda.evaluate(*wrong, extractor=CUSTOM.extractor)
    for few in (-5, 1):
        with pytest.raises(PagodaError, match=f"n = {few}; it must be a whole number from 2 up"):
            pagoda.evaluate(made, "real.zip", n=few, extractor=CUSTOM.extractor)


def test_a_generator_over_several_seeds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _write_generator(Path("gen"))
    write_zip(Path("small.zip"), pictures(60, 8))
    asked = request(
        source=Source(Path("gen")), reference=Path("small.zip"), n=40, seeds=(0, 1, 5),
        metrics="fd,score",
    )  # fmt: skip
    tree = score.run(asked)
    assert tree is not None
    rows = [row for row in tree["rows"] if row["metric"] == "fd"]
    assert [(row["seed"], row["nfe"], row["base_res"]) for row in rows] == [
        (0, 1, 8), (1, 1, 8), (5, 1, 8),
    ]  # fmt: skip
    found = [row["value"] for row in rows]
    assert len(set(found)) == 3
    distance, sharpness = tree["over_seeds"]
    assert distance["fd_custom_scorenet_embed_40_best_of_3"] == min(found) == distance["min"]
    assert distance["mean"] == pytest.approx(np.mean(found))
    assert distance["sd"] == pytest.approx(np.std(found, ddof=1))
    assert sharpness["score_custom_scorenet_embed_40_s2_best_of_3"] == sharpness["max"]
    assert "best_of_3" in capsys.readouterr().out
    lines = {line[1].text: line[3] for line in evaluations_table([Path("out.json")]).rows}
    assert list(lines) == ["0", "1", "5", "mean", "sd", "least", "best of 3"]
    assert lines["best of 3"].title == lines["least"].title == repr(min(found))
    again = score.run(dataclasses.replace(asked, seeds=(1,), out=None))
    assert again is not None
    assert again["rows"][0]["value"] == found[1]  # a sample is a function of (seed, index)
    with pytest.raises(PagodaError, match="--n says how many"):
        score.run(dataclasses.replace(asked, n=None))


@pytest.mark.longer
def test_inception_with_published_statistics(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EDM's and ADM's files, with stand-in weights; FID is the name of this distance alone."""
    write_inception(Path("inception-2015-12-05.pt"))
    publish(Path("inception-2015-12-05.pt"), monkeypatch)
    how = Features("inception:legacy_tensorflow", 16, Path("inception-2015-12-05.pt"))
    real = pictures(24, seed=1)
    write_zip(Path("real.zip"), real)
    score.make_reference(Source(Path("real.zip")), how, None, 24, True, Path("ref"))
    held = artifacts.open_artifact("ref", "reference")
    mu, sigma = held.array("mean"), held.array("covariance")
    np.savez("edm.npz", mu=mu, sigma=sigma)
    np.savez("VIRTUAL_x.npz", mu=mu, sigma=sigma, mu_s=held.array("spatial_mean"),
             sigma_s=held.array("spatial_covariance"), arr_0=real)  # fmt: skip
    np.savez("mine_legacy_pytorch_custom_na.npz", mu=mu, sigma=sigma)
    asked = request(features=how, reference=Path("ref"), metrics="sfid,prdc,is,is_adm", n=20)
    kept = score.run(asked)
    published = score.run(dataclasses.replace(asked, reference=Path("VIRTUAL_x.npz")))
    assert values(published) == pytest.approx(values(kept), rel=1e-9)
    plain = dataclasses.replace(asked, reference=Path("edm.npz"), metrics="fid")
    only = score.run(plain)
    trees = [tree["rows"] for tree in (kept, only) if tree]
    names = {row["protocol"] for rows in trees for row in rows}
    assert {"fid_legacy_tensorflow_20", "sfid_legacy_tensorflow_20", "is_legacy_tensorflow_20_s2",
            "is_adm_legacy_tensorflow_20_s1"} < names  # fmt: skip
    assert ["reference_n" in row for row in trees[1]] == [False]
    for changes, wanted in (
        ({"metrics": "sfid"}, "no statistics of spatial features"),
        ({"metrics": "prdc"}, "keeps no features of single images, which precision"),
        ({"reference": Path("mine_legacy_pytorch_custom_na.npz")},
         "inception_legacy_pytorch and inception_legacy_tensorflow"),
        ({"features": CUSTOM, "metrics": "fd"},
         "extractor inception_legacy_tensorflow and custom_scorenet_embed"),
        ({"features": CUSTOM}, "--metrics fid is a name for Inception's features only.* fd"),
    ):  # fmt: skip
        with pytest.raises(PagodaError, match=wanted) as raised:
            score.run(dataclasses.replace(plain, **changes))
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"n": 500}, "made has 70 images, --n asks for 500"),
        ({"n": 3, "metrics": "prdc"}, "3 images have no 3 neighbours"),
        ({"n": 9, "metrics": "fd_inf"}, "9 samples and 15 sizes do not make a line"),
        ({"n": 10, "metrics": "kd"}, "subsets of 20 cannot be drawn from 10"),
        ({"settings": Settings(splits=80), "metrics": "score"}, "70 images cannot fill 80 splits"),
        ({"settings": Settings(splits=0), "metrics": "score"}, "cannot fill 0 splits"),
        ({"settings": Settings(neighbours=0), "metrics": "prdc"}, "70 images have no 0 neighbours"),
        ({"settings": Settings(subsets=0), "metrics": "kd"}, "0 subsets of 1000 cannot be drawn"),
        ({"metrics": "fod"}, "--metrics fod is unknown; known: fid"),
        ({"metrics": "kid"}, "a name for Inception's features only"),
        ({"metrics": "accuracy"}, "class accuracy needs the class of every image"),
        ({"metrics": "train_share"}, "real images of a second split, which the pipeline's"),
        ({"seeds": (0, 1)}, "is no generator: several --seeds"),
        ({"source": Source(Path("made"), crop="adm", size=8), "reference": Path("ref")},
         "is 8x8, .*ref describes 24x24"),
        ({"reference": Path("nowhere")}, "there is no nowhere"),
        ({"reference": Path("stats.pkl")}, "stats.pkl is a pickle"),
        ({"out": Path("real.zip/x.json")}, "cannot write"),
    ],
)  # fmt: skip
def test_bad_requests_are_one_line_and_write_nothing(
    folder: Path, changes: dict[str, Any], wanted: str
) -> None:
    if changes.get("reference") == Path("ref"):
        score.make_reference(Source(Path("real.zip")), CUSTOM, None, 90, False, Path("ref"))
    before = sorted(os.listdir())
    with pytest.raises(PagodaError, match=wanted) as raised:
        score.run(request(**changes))
    assert "\n" not in str(raised.value)
    assert sorted(os.listdir()) == before


def test_rows_of_different_references_share_no_column(folder: Path) -> None:
    score.run(request(name="first"))
    score.run(request(name="second", seeds=(3,), n=60, out=Path("second.json")))
    table = evaluations_table([Path("out.json"), Path("second.json")])
    assert [line[0].text for line in table.rows] == ["first", "second"]
    write_zip(Path("real.zip"), pictures(80, seed=9))
    score.run(request(name="third", out=Path("third.json")))
    with pytest.raises(PagodaError, match=r"do not compare: images \(.*, n \(90, 80\) differ"):
        evaluations_table([Path("out.json"), Path("third.json")])
