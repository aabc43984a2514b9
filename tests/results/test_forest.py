"""The drawing of verdicts and of published figures: places in closed form, nothing left out."""

from __future__ import annotations

import dataclasses
import math

import pytest

from pagoda.config import parse
from pagoda.pipeline.derive import profile_tree
from pagoda.results import labels
from pagoda.results.blocks import Forest
from pagoda.results.charts import curve_charts, evaluations, published_charts
from pagoda.results.claim_verdicts import OPEN, REFUTED, SUPPORTED, Verdict
from pagoda.results.claims import FOLDER as STUDIES
from pagoda.results.claims import Claim, read_claims
from pagoda.results.classes import class_label, class_labels
from pagoda.results.experiment import stage_names
from pagoda.results.forest import forest
from pagoda.results.labels import stage_label
from pagoda.results.numbers import Interval
from pagoda.results.published import FOLDER, read_published
from tests.tiny import ROOT


@pytest.fixture(scope="module")
def claim() -> Claim:
    claims = read_claims(ROOT / STUDIES)
    return next(c for c in claims if c.effect == "ratio" and c.below and not c.exact)


def verdict(claim: Claim, outcome: str, low: float, mean: float, high: float) -> Verdict:
    return Verdict(claim, outcome, "r", "p", "fd", Interval(mean, low, high, 5))


def drawn(*verdicts: Verdict) -> Forest:
    block = forest(verdicts)[0]
    assert isinstance(block, Forest)
    return block


def test_a_ratio_stands_as_far_from_the_limit_as_its_logarithm(claim: Claim) -> None:
    limit = claim.limit
    block = drawn(
        verdict(claim, SUPPORTED, 0.1 * limit, 0.2 * limit, 0.4 * limit),
        verdict(claim, REFUTED, limit, 2 * limit, 4 * limit),
    )
    (axis,) = block.axes
    ((first, second),) = (span.marks for span in axis.spans)
    unit = (second.middle - axis.limit) / math.log(2)
    for place, ratio in ((first.low, 0.1), (first.middle, 0.2), (first.high, 0.4)):
        assert place == pytest.approx(axis.limit + unit * math.log(ratio), abs=0.05)
    assert block.counts == ((SUPPORTED, 1), (REFUTED, 1))


def test_a_claim_is_one_line_with_a_mark_for_every_profile_and_protocol(claim: Claim) -> None:
    first = verdict(claim, SUPPORTED, 0.1, 0.2, 0.4)
    others = (dataclasses.replace(first, profile="q"), dataclasses.replace(first, protocol="kid"))
    ((span,),) = (axis.spans for axis in drawn(first, *others).axes)
    assert (span.text, span.effect) == (claim.claim, "")
    said = "supported, ×0.200 (0.100 to 0.400); r"
    assert [mark.title for mark in span.marks] == [
        f"p, fd: {said}", f"q, fd: {said}", f"p, kid: {said}",
    ]  # fmt: skip
    ((alone,),) = (axis.spans for axis in drawn(first).axes)
    assert alone.effect == "×0.200 (0.100 to 0.400)"


def test_the_side_of_the_claim_is_left_for_both_directions(claim: Claim) -> None:
    above = dataclasses.replace(claim, id="other", holds={"above": claim.limit})
    low, mean, high = (claim.limit * k for k in (1.5, 2.0, 2.5))
    block = drawn(
        verdict(above, SUPPORTED, low, mean, high), verdict(claim, REFUTED, low, mean, high)
    )
    (supported,), (refuted,) = (span.marks for span in block.axes[0].spans)
    assert supported.low < supported.middle < supported.high < block.axes[0].limit
    assert block.axes[0].limit < refuted.low < refuted.middle < refuted.high


def test_differences_have_an_axis_of_their_own_and_claims_without_runs_a_sentence(
    claim: Claim,
) -> None:
    other = dataclasses.replace(claim, effect="difference", holds={"below": 0.0})
    blocks = forest([
        verdict(claim, OPEN, 0.5, 1.0, 2.0), verdict(other, SUPPORTED, -3.0, -2.0, -1.0),
        Verdict(claim, OPEN, "the study was not run"),
    ])  # fmt: skip
    assert isinstance(blocks[0], Forest) and [len(a.spans) for a in blocks[0].axes] == [1, 1]
    assert f"1 verdicts ({claim.id})" in str(blocks[1])
    assert forest([]) == ()


def test_differences_of_two_units_are_drawn_apart(claim: Claim) -> None:
    found = [
        verdict(
            dataclasses.replace(claim, id=metric, metric=metric, effect="difference",
                                holds={"above": 0.0}), SUPPORTED, mean / 2, mean, 2 * mean,
        )
        for metric, mean in (("recall", 0.1), ("psnr", 5.0), ("precision", 0.2),
                             ("seconds_per_image", 3.0))
    ]  # fmt: skip
    fractions, decibels, times = drawn(*found).axes
    assert (len(fractions.spans), len(decibels.spans), len(times.spans)) == (2, 1, 1)
    assert decibels.title == "Differences in dB, from the limit"
    assert times.title == "Differences in s, from the limit"  # tables show ms
    ((small,), (large,)) = (span.marks for span in fractions.spans)
    far, near = (fractions.limit - mark.middle for mark in (large, small))
    assert far > 30 and near == pytest.approx(far / 2, abs=0.1)  # hundredths of the width


def test_every_quantity_says_what_it_is_measured_in() -> None:
    for shown in labels._OTHERS.values():
        assert (shown.measured_in == shown.unit) == (shown.scale == 1)


def test_every_published_fid_with_evaluations_is_in_one_chart() -> None:
    published = read_published(ROOT / FOLDER)
    charts = published_charts(published)
    assert charts is not None and len(charts.charts) == 4
    points = [v for chart in charts.charts for v in chart.spec["data"]["values"]]
    told = [p for p in published if (p.dataset, p.metric) == ("ImageNet", "FID")
            and p.resolution in (64, 128, 256, 512) and evaluations(p.nfe)]  # fmt: skip
    assert sorted((v["method"], v["fid"]) for v in points) == sorted(
        (p.method, p.value) for p in told
    )
    assert published_charts([]) is None


def test_a_chart_is_named_after_the_stage_whose_losses_it_draws() -> None:
    """Every stage of a latent profile, too; text and page say the same but for the number."""
    stages = stage_names(parse(profile_tree("latent", ROOT)))
    lines = [f"{stage}: loss\t{images}\t1.5" for stage in stages for images in (8, 16)]
    charts = curve_charts({"latent": "\n".join(["curve\timages\tvalue", *lines])})
    assert charts is not None
    titles = dict(zip(stages, (chart.title for chart in charts.charts), strict=True))
    assert titles["autoencoder"] == "Autoencoder, whose codes are modelled"
    assert titles["teacher"] == "Diffusion teacher" and titles["grow-32"] == "Growth to 32×32"
    for stage, title in titles.items():
        assert stage_label(stage).lower().endswith(title.lower())
    assert stage_label("grow-32") == "Stage 3, growth to 32×32"


def test_a_run_has_one_dash_in_all_charts_and_a_legend_that_fits() -> None:
    """Long names stand below each other; a run without a stage is not in its legend."""
    head, line = "curve\timages\tvalue\n", "{}: loss\t8\t1.5"
    tables = {"a": head + line.format("teacher"), "b": head + line.format("distill"),
              "a profile of a long name": head + line.format("teacher")}  # fmt: skip
    charts = curve_charts(tables)
    assert charts is not None
    dashes = [chart.spec["encoding"]["strokeDash"] for chart in charts.charts]
    first, second = ({k: d[k] for k in ("field", "scale")} for d in dashes)
    assert first == second and first["scale"]["domain"] == list(tables)
    legends = [(d["legend"]["values"], d["legend"]["columns"]) for d in dashes]
    assert legends == [(["a", "a profile of a long name"], 1), (["b"], 2)]


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("250x2", 500), ("multi", 0), ("", 0)])
def test_guidance_doubles_evaluations(text: str, number: int) -> None:
    assert evaluations(text) == number


def test_curves_are_said_to_be_in_the_files_that_there_are() -> None:
    table = "curve\timages\tvalue\nteacher: loss\t8\t1.5\nteacher: loss\t16\t1.2"
    own = curve_charts({"a": table})
    assert own is not None and "are in `curves.tsv`." in own.caption
    both = curve_charts({"a": table, "b": table}, ("[a](a.tsv)", "[b](b.tsv)"))
    assert both is not None and "are in [a](a.tsv) and [b](b.tsv)." in both.caption


def test_numbered_classes_of_a_known_set_have_its_names() -> None:
    digits = [str(i) for i in range(10)]
    assert class_labels(digits, "FashionMNIST")[:2] == ("T-shirt/top", "Trouser")
    assert class_labels(digits) == class_labels(digits, "no.such-set") == tuple(digits)
    assert class_labels(digits[:3], "FashionMNIST") == ("0", "1", "2")
    assert class_labels(["fire_truck", "n01440764"], "FashionMNIST") == ("fire truck", "tench")


def test_synsets_are_named_in_words() -> None:
    assert class_label("n01440764") == "tench"
    assert class_label("n00000000") == "n00000000"
    assert class_label("fire_truck") == "fire truck"
