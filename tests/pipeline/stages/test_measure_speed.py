"""The study of speed at a tiny size: parts, ways, what is too slow, and the published sizes."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from pagoda import artifacts
from pagoda.config import Config, VariantConfig, parse
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.stages import measure_speed, study
from pagoda.pipeline.stages.compute import Untrained
from pagoda.pipeline.stages.counters import META, forward_flops, parameters
from pagoda.pipeline.stages.measure_speed import (
    AS_WIDE,
    GROWN,
    KL,
    LCM,
    SD_UNET,
    TAESD,
    Calls,
    Parts,
    measured,
    of_decoders,
    of_lcm,
    timed,
)
from pagoda.pipeline.stages.study_spec import load_study, variant_config
from pagoda.results import style
from pagoda.results.claim_verdicts import verdicts_of
from pagoda.results.claims import read_claims
from pagoda.results.speed_figure import draw_speed
from pagoda.results.studies import StudyResults, read_study, study_folder
from pagoda.rows import Row
from tests.pipeline.stages.prepared import prepare
from tests.results.synthetic_study import make_card
from tests.tiny import ROOT, copy_studies, smoke_tree, tiny_tree

CPU = torch.device("cpu")


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.chdir(ROOT)
    return parse(smoke_tree())


def variant(config: Config, name: str) -> VariantConfig:
    found = load_study("speed")
    return variant_config(config, found, found.variant(name), 0)


def without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise PagodaError("needs the package diffusers")

    monkeypatch.setattr(measure_speed, "_stable_diffusion", missing)


def test_a_way_is_the_sum_of_its_parts(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_diffusers(monkeypatch)
    monkeypatch.setattr(measure_speed, "_SPAN", 0.0)
    rows = measured(of_decoders, variant(config, "pixels-32-batch-16"), 3, CPU)
    at = {(r.generator, r.metric): r for r in rows}
    assert {way for way, _ in at} == {GROWN, AS_WIDE, TAESD}
    assert KL in capsys.readouterr().err
    wholes = (("seconds_per_image", "part_seconds"), ("sampling_flops", "part_flops"))
    for way, last in ((GROWN, "growth"), (AS_WIDE, "decoder"), (TAESD, "decoder")):
        for whole, part in wholes:
            parts = (at[way, f"{part}_{name}"].number for name in ("base", last))
            assert at[way, whole].number == pytest.approx(sum(parts))
        seconds = at[way, "seconds_per_image"]
        assert seconds.protocol == "seconds_per_image_b16" and seconds.interval == "quartiles_of_3"
        assert (seconds.resolution, seconds.n, seconds.nfe) == (32, 16, 1)


def test_parts_are_those_of_the_generator_and_of_one_u_net(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compute of trunk, levels and head is the whole generator's; codes cost one convolution
    more at each end, and nothing else.
    """
    without_diffusers(monkeypatch)
    found = variant(config, "pixels-64-batch-1")
    parts = of_decoders(found, 3, META)
    flops = {k: forward_flops(call) for k, call in parts.calls(1).items()}
    untrained = Untrained(found, 3, 1)
    whole = untrained.call(untrained.generator(64), 8)
    assert flops["base"] + flops["growth"] == whole
    width, side = found.teacher.network.channels, 8
    stem_and_head = 2 * 9 * side**2 * width * (1 + 4)  # a channel more in, four out
    assert flops["base of codes"] - flops["base"] == stem_and_head


def test_what_would_take_too_long_is_counted_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one image foretells; both parts of a way are in its time, or it has none."""
    called: list[tuple[str, int]] = []

    def calls(n: int) -> Calls:
        def taking(name: str, seconds: float) -> float:
            called.append((name, n))
            return seconds * n

        return {"quick": lambda: taking("quick", 1.0), "slow": lambda: taking("slow", 1.5)}

    monkeypatch.setattr(measure_speed, "_seconds", lambda call, _: call())
    parts = Parts(calls, {})
    assert timed(parts, 16, CPU) == {"quick": [16.0] * 3}
    assert ("slow", 16) not in called and ("slow", 1) in called
    assert "slow: 16 images would take 24 s" in capsys.readouterr().err
    assert timed(parts, 1, CPU) == {"quick": [1.0] * 4, "slow": [1.5] * 4}
    assert timed(parts, 64, CPU) == {}  # all of it is counted


def test_parts_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(measure_speed, "_SPAN", 0.0)
    parts = Parts(lambda n: {k: partial(called.append, k) for k in "abc"}, {})
    timed(parts, 1, CPU)
    assert called == list("abc") * 4  # the first turn is not counted


def test_a_first_turn_that_is_long_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What warms is no part of it, and another turn would take as long again."""
    times = iter([11.0, 12.0, 13.0])
    monkeypatch.setattr(measure_speed, "_seconds", lambda call, _: next(times))
    assert timed(Parts(lambda n: {"slow": int}, {}), 1, CPU) == {"slow": [11.0, 12.0, 13.0]}


def test_the_published_sizes_are_published(config: Config) -> None:
    """The variant's network is the profile imagenet's; LCM's has the parameters of Stable
    Diffusion 1.5's U-Net (859,520,964) and, as LCM adds, a matrix of the guidance.
    """
    found = variant(config, "published-batch-1")
    theirs = parse(profile_tree("imagenet", ROOT))
    ours, paper = (Untrained(c, 1000, 1).generator(512) for c in (found, theirs))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in paper.state_dict().items()
    }
    diffusers = pytest.importorskip("diffusers")
    with META:
        unet = diffusers.UNet2DConditionModel(**SD_UNET)
        decoder = measure_speed._stable_diffusion().decoder
    assert parameters(unet) == 859_520_964 + 256 * 320
    assert parameters(decoder) == 49_490_179
    parts = of_lcm(found, 10, META)
    assert parts.ways[LCM] == ("U-Net of LCM", "decoder of LCM")
    assert {"base", "growth", *parts.ways[LCM]} == set(parts.calls(1))


def test_the_base_has_the_side_of_the_codes(config: Config) -> None:
    found = dataclasses.replace(variant(config, "pixels-64-batch-1"), target_res=32)
    with pytest.raises(PagodaError, match="base_res = 8 and target_res = 32; codes have an 8th"):
        of_decoders(found, 3, META)


def _rows() -> list[Row]:
    """What the study would leave if decoders took 2.5 times the time, and compute, of growth."""
    asked, rows = load_study("speed"), []
    for name, v in asked.variants.items():
        lcm, n = v.steps == ("time_lcm",), v.set["evaluate.batch"]
        others = [LCM] if lcm else [AS_WIDE, TAESD, KL]
        ways = {GROWN: ("growth", 1.0)} | dict.fromkeys(others, ("decoder", 2.5))
        for seed in range(3):
            facts = {"variant": name, "training_seed": seed, "n": n,
                     "resolution": v.set["target_res"], "base_res": v.set["base_res"]}  # fmt: skip
            for way, (last, value) in ways.items():
                whole = value * (1 + 0.01 * seed)
                parts = {"base": 0.1 * whole, last: 0.9 * whole}
                for metric, batch in (("seconds", f"_b{n}"), ("flops", "")):
                    rows += [Row(metric=f"part_{metric}_{p}", protocol=f"part_{metric}_{p}{batch}",
                                 value=x, generator=way, **facts) for p, x in parts.items()
                             ]  # fmt: skip
                rows.append(Row(metric="seconds_per_image", protocol=f"seconds_per_image_b{n}",
                                value=whole, generator=way, **facts))  # fmt: skip
                rows.append(Row(metric="sampling_flops", protocol="sampling_flops", value=value,
                                generator=way, **facts))  # fmt: skip
    return rows


def test_every_claim_finds_its_rows(config: Config, tmp_path: Path) -> None:
    asked = load_study("speed")
    labels = {k: v.label for k, v in asked.variants.items()}
    card = dataclasses.replace(make_card(), study="speed", variants=labels)
    results = StudyResults(card, tuple(_rows()), tmp_path)
    claims = [claim for claim in read_claims() if claim.study == "speed"]
    assert len(claims) == 7
    for claim in claims:
        found = [v for v in verdicts_of(claim, results) if v.effect is not None]
        assert len(found) == 1, claim.id
        assert found[0].effect is not None
        assert found[0].effect.mean == pytest.approx(0.4) and found[0].outcome == "supported"


def test_the_figure_has_a_panel_a_variant_and_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = load_study("speed")
    labels = {k: v.label for k, v in asked.variants.items()}
    drawn: list[int] = []
    whole = style.panels

    def panels(count: int, *args: Any, **options: Any) -> Any:
        drawn.append(count)
        return whole(count, *args, **options)

    monkeypatch.setattr(style, "panels", panels)
    figure = draw_speed(_rows(), labels, tmp_path)
    assert drawn == [len(labels) + 2]  # counts are equal in all variants but the published
    assert (tmp_path / figure.file).is_file() and figure.plot
    for text in ("A: Grown generator", "TAESD", "LCM", "seeds 0, 1, 2"):
        assert text in figure.caption


@pytest.mark.longer
def test_a_variant_of_another_size_names_the_profiles_features_and_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the run of a variant to the study's table and figure."""
    without_diffusers(monkeypatch)
    monkeypatch.setattr(measure_speed, "_SPAN", 0.0)
    monkeypatch.chdir(tmp_path)
    profile = parse(tiny_tree(target_res=16, **{"studies.whole.seeds": [0]}))
    copy_studies(Path())
    prepare(profile)
    asked = load_study("speed")
    name = "pixels-32-batch-16"
    found = dataclasses.replace(asked, variants={name: asked.variant(name)})
    measure_speed.run(profile, found, found.variant(name), 0)
    study.run(profile, found)
    results = read_study(study_folder(profile.name, "speed"))
    features = artifacts.open_artifact(Paths(profile).features, "features").fingerprint
    assert {(r.resolution, r.base_res, r.features) for r in results.rows} == {(32, 4, features)}
    assert [figure.file for figure in results.card.figures] == ["speed.png"]
    assert (results.folder / "speed.png").is_file()
