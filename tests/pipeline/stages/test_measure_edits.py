"""The study of edits at a tiny size, with networks that learned nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pagoda import artifacts
from pagoda.config import Config, parse
from pagoda.data.pixels import to_float
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import held_edits, invert, measure_edits, study
from pagoda.pipeline.stages.study_spec import load_study, variant_config
from pagoda.results.claim_verdicts import verdicts_of
from pagoda.results.claims import read_claims
from pagoda.results.studies import StudyResults, read_study, study_folder
from tests.pipeline.stages.prepared import prepare
from tests.pipeline.stages.untrained import write_models
from tests.tiny import copy_studies, tiny_tree

SEEDS = [0, 1]
TINY = {"target_res": 16, "studies.whole.seeds": SEEDS}


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(tiny_tree(**TINY))


@pytest.fixture(scope="module")
def done(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where every variant ran with every seed."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        copy_studies(Path())
        prepare(config)
        write_models(config)
        invert.run(config)
        found = load_study("editing")
        for variant in found.variants.values():
            for seed in SEEDS:
                measure_edits.run(config, found, variant, seed)
        study.run(config, found)
    return folder


@pytest.fixture
def results(done: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> StudyResults:
    monkeypatch.chdir(done)
    return read_study(study_folder(config.name, "editing"))


@pytest.mark.longer
def test_seeds_may_be_made_in_parts(
    done: Path, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has images of its own, and compares with others of them."""
    shutil.copytree(done, tmp_path / "part", symlinks=True)
    monkeypatch.chdir(tmp_path / "part")
    folder, found = study_folder(config.name, "editing"), load_study("editing")
    before = read_study(folder).rows
    for variant in found.variants.values():
        shutil.rmtree(found.folder(config, variant, SEEDS[0]))
    study.run(config, found, True)
    assert read_study(folder).rows == before


def values(results: StudyResults, metric: str, variant: str, **facts: object) -> dict[str, float]:
    """By generator, of the first seed at the target."""
    facts = {"training_seed": 0, "resolution": 16, **facts}
    return {r.generator: r.number for r in results.rows if r.metric == metric
            and r.variant == variant and all(getattr(r, k) == v for k, v in facts.items())
            }  # fmt: skip


@pytest.mark.longer
def test_every_claim_finds_what_it_is_about(results: StudyResults) -> None:
    claims = [claim for claim in read_claims() if claim.study == "editing"]
    assert len(claims) == 7
    for claim in claims:
        for verdict in verdicts_of(claim, results.with_derived()):
            assert set(verdict.seeds) == set(SEEDS), f"{claim.id}: {verdict.reason}"


@pytest.mark.longer
def test_what_was_seen_comes_back_where_it_is_put_back(results: StudyResults) -> None:
    filled = values(results, "consistency", "inpaint-centre")
    assert filled.pop("searched_unpasted") > 0
    assert set(filled.values()) == {0.0}
    enlarged = values(results, "consistency", "super-resolution")
    assert enlarged["inverted_consistent"] < enlarged["inverted"]
    # No latent is nearer to what was seen than that which the search found, from the inverted one.
    assert enlarged["searched"] <= enlarged["inverted"] + 2 / 255


@pytest.mark.longer
def test_calls_are_those_of_the_settings(results: StudyResults, config: Config) -> None:
    edit = config.studies.edit
    rows = [r for r in results.rows if r.metric == "hole_psnr" and r.resolution == 16]
    calls = {r.generator: r.nfe for r in rows if r.variant == "inpaint-random"}
    assert calls["mean_fill"] == 0 and calls["inverted"] == calls["random_latent"] == 1
    assert calls["searched"] == edit.steps * edit.restarts
    several = [r for r in results.rows if r.metric == "diversity"]
    assert {r.variant for r in several} == {"inpaint-centre"}
    calls |= {r.generator: r.nfe for r in several if r.generator == "langevin"}
    assert calls["langevin"] == edit.steps + edit.walk_steps + 1
    assert calls["teacher_posterior"] == edit.posterior_steps


@pytest.mark.longer
def test_the_teacher_is_measured_at_its_own_size_too(results: StudyResults) -> None:
    for variant in ("inpaint-centre", "inpaint-random"):
        at_base = values(results, "hole_psnr", variant, resolution=8)
        assert {"searched", "teacher_posterior", "smooth_fill"} <= set(at_base)
    assert not values(results, "whole_psnr", "super-resolution", resolution=8)


@pytest.mark.longer
def test_the_best_answer_is_no_worse_than_the_mean_and_answers_differ(
    results: StudyResults,
) -> None:
    best = values(results, "best_hole_psnr", "inpaint-centre")
    assert set(best) == {"langevin", "teacher_posterior", "random_latent"}
    assert best["langevin"] >= values(results, "hole_psnr", "inpaint-centre")["langevin"]
    assert min(values(results, "diversity", "inpaint-centre").values()) > 0


@pytest.mark.longer
def test_paths_keep_their_norm_on_the_arc_only(results: StudyResults) -> None:
    kept = values(results, "path_norm", "interpolation")
    assert kept["slerp"] == pytest.approx(1, abs=0.03) and kept["lerp"] < kept["slerp"]
    lengths = {r.protocol for r in results.rows if r.metric == "path_length"}
    assert lengths == {"ppl_classifier_full_eps1e-4_80"}


@pytest.mark.longer
def test_seeds_take_other_images_and_the_picture_shows_the_first(
    done: Path, results: StudyResults, config: Config
) -> None:
    test = np.load(done / "runs/tiny/data/16/test_images.npy")
    found = load_study("editing")
    for seed in SEEDS:
        folder = found.folder(config, found.variants["transfer"], seed) / "measured"
        shown = artifacts.open_artifact(folder, "measurement").array("edit-00-original")
        first = seed * config.studies.edit.images
        np.testing.assert_array_equal(shown, test[first : first + len(shown)])
    assert (results.folder / "edits.png").is_file()
    assert [figure.file for figure in results.card.figures] == ["edits.png"]
    summary = (results.folder / "summary.md").read_text(encoding="utf-8")
    assert (
        "Inpainting, centre: searched |" in summary and "Class transfer: transferred |" in summary
    )


@pytest.mark.longer
def test_a_rate_that_is_never_reached_has_a_value(results: StudyResults) -> None:
    rates = [r for r in results.rows if r.metric == "target_rate"]
    assert all(0 < r.number < 1 for r in rates)


def test_training_and_edits_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy_studies(Path())
    file = Path("experiments/editing/study.yaml")
    text = file.read_text(encoding="utf-8").replace("[transfer]\n", "[distill, transfer]\n", 1)
    file.write_text(text, encoding="utf-8")
    with pytest.raises(PagodaError, match="of training or of edits, not both"):
        load_study("editing")


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"text.captions": "short"}, "text.captions = 'short'"),
        ({"data.space": "latent", "base_res": 16, "target_res": 16}, "data.space = 'latent'"),
    ],
)
def test_a_profile_without_pixels_of_classes_is_refused(
    changes: dict[str, object], wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy_studies(Path())
    found = load_study("editing")
    variant, own = next(iter(found.variants.values())), parse(tiny_tree(**TINY | changes))
    with pytest.raises(PagodaError, match=f"^{wrong}; study editing edits images of classes"):
        measure_edits.run(own, found, variant, 0)


@pytest.mark.longer
def test_seeds_share_no_held_out_images(
    done: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interval over blocks of images would be too narrow."""
    monkeypatch.chdir(done)
    found, there = load_study("editing"), config.data.test_images
    assert there is not None
    last = there // config.studies.edit.images - 1
    keys: list[int] = []
    for seed in range(last + 1):
        own = variant_config(config, found, next(iter(found.variants.values())), seed)
        keys += held_edits.Held(own, 16, torch.device("cpu")).keys
    assert len(set(keys)) == len(keys)
    own = variant_config(config, found, next(iter(found.variants.values())), last + 1)
    with pytest.raises(PagodaError, match=f"^seed {last + 1} has no block of .* there are {there}"):
        held_edits.Held(own, 16, torch.device("cpu"))


@pytest.mark.longer
def test_the_nearest_training_image_is_found_in_blocks(
    done: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(done)
    found = load_study("editing")
    own = variant_config(config, found, next(iter(found.variants.values())), 0)
    held = held_edits.Held(own, 16, torch.device("cpu"))
    monkeypatch.setattr(held_edits, "_AT_ONCE", 7)

    def left(x: torch.Tensor, i: int) -> torch.Tensor:
        return x[..., : 4 + i]

    stored = to_float(torch.from_numpy(np.array(open_images(held.data, "train")[:])))
    for i, image in enumerate(held_edits.nearest(held, left)):
        off = (left(stored, i) - left(held.images[i : i + 1], i)).square().flatten(1).sum(1)
        assert torch.equal(image, stored[off.argmin()])
    assert np.array_equal(held.read([3, 1]), held.read([0, 1, 2, 3])[[3, 1]])
