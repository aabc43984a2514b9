"""The project's own claims: variants that exist, either verdict possible."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import yaml

from pagoda.results.claim_verdicts import REFUTED, SUPPORTED, all_verdicts
from pagoda.results.claims import FOLDER, Claim, read_claims
from pagoda.results.labels import TOTALS
from pagoda.results.studies import AS_METRICS
from pagoda.rows import Row
from tests.results.synthetic_claim import results
from tests.results.synthetic_study import make_row
from tests.tiny import ROOT


def test_the_projects_claims_name_variants_that_their_studies_have() -> None:
    for claim in read_claims(ROOT / FOLDER):
        tree = yaml.safe_load((ROOT / FOLDER / claim.study / "study.yaml").read_text())
        assert {*claim.value, *claim.against} <= set(tree["variants"]), claim.id


def test_what_came_of_a_claim_is_of_profiles_that_there_are() -> None:
    profiles = {file.stem for file in (ROOT / FOLDER / "profile").glob("*.yaml")}
    named = {profile for claim in read_claims(ROOT / FOLDER) for profile in claim.profiles}
    assert named and named <= profiles


def _held(claim: Claim, seed: int, *, right: bool) -> list[Row]:
    """Results of one seed that lie on one side of a claim's limit, by every variant it names."""
    factor = (0.5 if claim.below == right else 2.0) * (1 + 0.01 * seed)
    rows = []
    for first, second in claim.pairs:
        ours = claim.limit * factor if claim.effect in ("ratio", "value") else 0.5
        step = 0.1 if claim.below == right else -0.1
        theirs = 1.0 if claim.effect == "ratio" else 0.5 - claim.limit + step * (1 + 0.1 * seed)
        rows += _at(claim, first, seed, ours, claim.generator)
        if claim.effect == "value":
            continue
        rows += _at(claim, second, seed, theirs, claim.against_generator or claim.generator)
    return rows


def _followed(claim: Claim, seed: int, *, right: bool) -> list[Row]:
    """Students that follow their teachers by a power law, more or less closely than the others."""
    rows = []
    for variants, exponent in ((claim.value, 0.2), (claim.against, 0.8)):
        power = exponent if claim.below == right else 1 - exponent
        for stage, variant in enumerate(variants):
            rows += _at(claim, variant, seed, 2.0**stage, "teacher")
            noise = 1 + 0.01 * seed * stage
            rows += _at(claim, variant, seed, 2.0 ** (power * stage) * noise, claim.generator)
    return rows


def _ordered(claim: Claim, seed: int, *, right: bool) -> list[Row]:
    """Generators in the order of others at the base, or in the opposite one, however far apart."""
    rows, at_base = [], dataclasses.replace(claim, resolution="base")
    for place, variant in enumerate(claim.value):
        rows += _at(at_base, variant, seed, 2.0**place, claim.against_generator)
        rows += _at(claim, variant, seed, 5.0 + (place if right else -place) * 0.1, claim.generator)
    return [row for row in rows if row.generator == claim.against_generator or row.size > 8]


def _at(claim: Claim, variant: str, seed: int, value: float, generator: str) -> list[Row]:
    """A value of a variant where its claim looks: in a row, a column or a sum over stages."""
    sizes = {"base": [8], "target": [8, 32], "grown": [16, 32]}[str(claim.resolution)]
    facts: dict[str, Any] = {"axis": None, "generator": generator}
    if claim.metric in AS_METRICS:
        number = round(value * 1000) if claim.metric == "nfe" else value * 1e12
        facts |= {claim.metric: number}
    elif claim.metric in TOTALS.values():
        facts |= {"metric": {v: k for k, v in TOTALS.items()}[claim.metric],
                  "protocol": "stage_flops_teacher"}  # fmt: skip
        return [make_row(variant, seed, value, resolution=sizes[-1], **facts)]
    else:
        facts |= {"metric": claim.metric, "protocol": f"{claim.metric}_1k"}
    return [make_row(variant, seed, value, resolution=res, **facts) for res in sizes]


@pytest.mark.parametrize("claim", read_claims(ROOT / FOLDER), ids=lambda c: c.id)
def test_each_claim_of_the_project_can_come_out_either_way(claim: Claim) -> None:
    make = {"slope": _followed, "order": _ordered}.get(claim.effect, _held)
    variants = dict.fromkeys([*claim.value, *claim.against], "")
    for right, expected in ((True, SUPPORTED), (False, REFUTED)):
        seeds = claim.seeds
        rows = [row for seed in range(seeds) for row in make(claim, seed, right=right)]
        (found,) = all_verdicts([claim], [results(rows, study=claim.study, variants=variants)])
        assert (found.outcome, len(found.seeds)) == (expected, seeds), found.reason
