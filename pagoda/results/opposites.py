"""Verdicts of different studies that point in opposite directions, and how long each trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pagoda.results.claim_verdicts import OPEN, REFUTED, SUPPORTED, Verdict
from pagoda.results.numbers import listed
from pagoda.rows import grouped


def opposite_verdicts(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """A sentence for each variant beside which one study supports what another does not.

    Two claims are set beside each other if profile, protocol, generator, resolution, kind and
    direction of the effect are the same, and one of the two variants that they compare has the same
    name for readers. The number of training images is that of the results, for the largest
    resolution.
    """
    decided = [v for v in verdicts if v.outcome != OPEN and v.study is not None]
    beside = [(key, v) for v in decided for key in _comparisons(v)]
    met: dict[tuple[str, str], list[Verdict]] = {}  # by profile and the variant's name
    for key, found in grouped(beside, lambda pair: pair[0]).items():
        own = [v for _, v in found]
        sides = [{v.claim.study for v in own if v.outcome == o} for o in (SUPPORTED, REFUTED)]
        if all(sides) and len(sides[0] | sides[1]) > 1:
            met.setdefault(key[0], []).extend(own)
    return tuple(_sentence(*key, found) for key, found in met.items())


def _comparisons(verdict: Verdict) -> Iterator[tuple[tuple[str, str], tuple[str, ...]]]:
    """What a verdict is one of, by each of its two variants; none of a claim on more than two."""
    claim, study = verdict.claim, verdict.study
    if study is None or len(claim.value) != 1 or len(claim.against) != 1:
        return
    same = (verdict.protocol, claim.generator, str(claim.resolution), claim.effect,
            "below" if claim.below else "above")  # fmt: skip
    for side, (variant,) in (("value", claim.value), ("against", claim.against)):
        yield (verdict.profile, study.card.variants.get(variant, variant)), (side, *same)


def _sentence(profile: str, variant: str, verdicts: Sequence[Verdict]) -> str:
    told = []
    by_kind = grouped(verdicts, lambda v: (v.outcome, v.claim.study))
    for (outcome, study), found in sorted(by_kind.items(), reverse=True):
        ids = listed(f"`{v.claim.id}`" for v in found)
        most = max(map(_images, found))
        length = f", {most:,} training images" if most else ""
        told.append(f"{ids} ({outcome}; study `{study}`{length})")
    return (
        f"**Opposite verdicts beside “{variant}”** (profile `{profile}`): {'; '.join(told)}. A "
        "study's size fixes how long it trains, and a verdict holds for that length and for the "
        "variants of its rule, not for others."
    )


def _images(verdict: Verdict) -> int:
    """Training images of the longest run that a claim names; 0 if they are not known."""
    claim, study = verdict.claim, verdict.study
    named = {*claim.value, *claim.against}
    rows = study.rows if study is not None else ()
    seen = (r.images_seen or 0 for r in rows if r.variant in named)
    return max(seen, default=0)
