"""What voters are shown: every pair once, sides random, repeats and attention pairs where said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.preference.study import (
    ATTENTION,
    PAIR,
    REPEAT,
    SCRAMBLED,
    Item,
    Obvious,
    Study,
    read_study,
    scramble,
    to_json,
)


def study(items: int = 20, generators: int = 3, **more: object) -> Study:
    names = "abcdef"[:generators]
    made = tuple(Item(f"prompt {i % 5}", tuple(f"{i}{g}" for g in names)) for i in range(items))
    obvious = tuple(Obvious(i, i % generators, f"{i}x") for i in range(items))
    return Study(tuple(names), ({},) * generators, ((8, 8),) * generators, made, obvious, **more)  # type: ignore[arg-type]


def test_a_voter_sees_every_pair_once_and_what_comes_on_top() -> None:
    trials = study(repeats=0.1, attention=0.05).trials("ann", 0)
    pairs = [(t.item, *sorted((t.left, t.right))) for t in trials if t.kind == PAIR]
    assert sorted(pairs) == [(i, a, b) for i in range(20) for a, b in ((0, 1), (0, 2), (1, 2))]
    kinds = Counter(t.kind for t in trials)
    assert (kinds[REPEAT], kinds[ATTENTION]) == (6, 3)
    for at, trial in enumerate(trials):
        if trial.kind == REPEAT:
            assert (PAIR, trial.item, trial.right, trial.left) in trials[:at]
        if trial.kind == ATTENTION:
            assert [trial.left, trial.right].count(SCRAMBLED) == 1
    third = [i * 3 // len(trials) for i, t in enumerate(trials) if t.kind == ATTENTION]
    assert third == [0, 1, 2]


def test_draws_depend_on_the_voter_alone() -> None:
    one, two = study(), study()
    assert one.trials("ann", 0) == two.trials("ann", 0) != one.trials("bob", 0)
    assert one.trials("ann", 0) != study(seed=1).trials("ann", 0)


def test_sides_are_random() -> None:
    trials = [t for v in range(40) for t in study().trials(f"v{v}", v) if t.kind == PAIR]
    left = np.mean([t.left < t.right for t in trials])
    assert abs(left - 0.5) < 4 * 0.5 / len(trials) ** 0.5


def own_pairs(of: Study, voter: str, turn: int) -> list[tuple[int, int, int]]:
    shown = [t for t in of.trials(voter, turn) if t.kind == PAIR]
    return [(t.item, min(t.left, t.right), max(t.left, t.right)) for t in shown]


def test_voters_in_turn_share_the_pairs_out() -> None:
    """Five voters of 12 pairs see all 60, every two generators as often; the sixth begins anew."""
    shared = study(per_voter=12)
    seen: Counter[tuple[int, int, int]] = Counter()
    for turn in range(5):
        own = own_pairs(shared, f"v{turn}", turn)
        assert Counter(pair[1:] for pair in own) == {(0, 1): 4, (0, 2): 4, (1, 2): 4}
        seen.update(own)
    assert len(seen) == 60 and set(seen.values()) == {1}
    assert set(own_pairs(shared, "v0", 0)) == set(own_pairs(shared, "other", 5))


def test_shuffled_pixels_are_the_same_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 9, 7), np.uint8)
    mixed = scramble(image, 0, 0)
    assert mixed is not None and (mixed != image).any()
    whole, shuffled = (sorted(map(tuple, x.reshape(3, -1).T.tolist())) for x in (image, mixed))
    assert whole == shuffled
    assert scramble(np.full((3, 9, 7), 4, np.uint8), 0, 0) is None


def test_a_study_that_was_changed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "study.json"
    file.write_text(to_json(study(per_voter=4)))
    assert read_study(tmp_path) == study(per_voter=4)
    for text in (file.read_text().replace("prompt 1", "prompt 2", 1), file.read_text()[:-9], "[]"):
        file.write_text(text)
        with pytest.raises(PagodaError, match=r"study\.json is damaged or was changed") as raised:
            read_study(tmp_path)
        assert "\n" not in str(raised.value)
    with pytest.raises(PagodaError, match=r"holds no study\.json"):
        read_study(tmp_path / "none")
