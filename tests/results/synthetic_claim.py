"""A small made-up claim and verdicts on it, for tests of claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pagoda.results.claim_verdicts import Verdict, verdicts_of
from pagoda.results.claims import Claim, read_claims
from pagoda.results.studies import StudyResults
from pagoda.rows import Row
from tests.results.synthetic_study import make_card, make_rows

RULE: dict[str, Any] = {
    "id": "pairs.few", "claim": "Few pairs are enough.", "source": "paper",
    "metric": "fd", "generator": "student", "resolution": "base", "value": ["few"],
    "against": ["many"], "effect": "ratio", "holds": {"below": 1.1}, "seeds": 3,
    "refuted": "few pairs are more than a tenth worse",
}  # fmt: skip


def make_claim(tmp_path: Path, **overrides: Any) -> Claim:
    (tmp_path / "pairs").mkdir(exist_ok=True)
    rule = RULE | overrides
    names = {*rule["value"], *rule["against"], "many"}
    text = yaml.safe_dump({"variants": {name: {} for name in names}, "claims": [rule]})
    (tmp_path / "pairs/study.yaml").write_text(text)
    return read_claims(tmp_path)[0]


def results(rows: Sequence[Row], **card: Any) -> StudyResults:
    return StudyResults(make_card(**card), tuple(rows), Path("reports/tiny/studies/pairs"))


def verdict(claim: Claim, values: Mapping[str, Sequence[float]]) -> Verdict:
    (found,) = verdicts_of(claim, results(make_rows(values)))
    return found


MANY = [10.0, 12.0, 11.0, 13.0]
