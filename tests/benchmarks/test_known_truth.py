"""The evaluator's own test: what is known of the images must be seen in the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import known_truth, known_truth_page
from benchmarks.known_truth_page import FOLDER, NEAR_ZERO, REPORT, RESULTS, Rule, Seen
from benchmarks.known_truth_sets import (
    NO_IMAGES,
    UNTRAINED,
    Real,
    blurred,
    mislabelled,
    noised,
    shuffled,
    without_classes,
)
from pagoda.config import parse
from pagoda.config.paths import Paths
from pagoda.errors import PagodaError
from pagoda.pipeline.stages import downsample, features
from pagoda.results.blocks import block_text
from tests.tiny import ROOT, tiny_tree

SMALL = {"base_res": 8, "target_res": 32, "data.train_images": 1500, "data.test_images": 500,
         "features.images": 6400, "features.dim": 64}  # fmt: skip


@pytest.mark.slow
def test_a_classifier_of_the_embedded_set_follows_what_is_done_to_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network trained for seconds, which may overlook the weakest of the changes.

    A quarter of the classes' images swapped, or more, is 0.2 of a fraction at least. It may take
    some images of an untrained generator for real ones (0.22, by a processor's rounding).
    """
    monkeypatch.chdir(tmp_path)
    config = parse(tiny_tree(**SMALL))
    downsample.run(config, 32)
    features.run(config)
    rows = known_truth.measure(Paths(config).features.parent, ["classifier"], 200)
    (own,) = known_truth_page.by_evaluator(rows).values()
    wrong = []
    for rule in known_truth_page.rules():
        values = [own[Seen(kind, amount, rule.metric)].number for kind, amount in rule.sets]
        first, *more = values
        if rule.how == "rises":
            holds = all(a < b for a, b in zip((first, *more[1:-1]), more[1:], strict=True))
        elif rule.how == "falls":
            holds = more[-1] < first - 0.2
        else:
            untrained = any(kind == UNTRAINED for kind, _ in rule.sets)
            holds = first <= (0.4 if untrained else NEAR_ZERO)
        wrong += [] if holds else [f"{rule.text}: {values}"]
    assert not wrong
    precision = [own[Seen(kind, None, "precision")].number for kind in NO_IMAGES]
    assert own[Seen("held out", None, "precision")].number > 0.8 > 10 * max(precision)


def test_what_is_asked_of_a_response() -> None:
    rises, falls, small = (Rule("", "fd", (), how) for how in ("rises", "falls", ""))
    assert rises.holds([1, 2, 3]) and not rises.holds([1, 2, 2]) and not rises.holds([1, 3, 2])
    assert falls.holds([3, 2, 2]) and not falls.holds([3, 1, 2])
    assert small.holds([0.05]) and not small.holds([0.051])


@pytest.fixture
def real() -> Real:
    """40 images of 10 classes, of which 20 are measured."""
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    return Real(images, np.arange(40) % 10, 20)


def test_shuffled_patches_are_those_of_their_image(real: Real) -> None:
    images, labels = shuffled(real, 4)
    assert images.shape == (20, 3, 16, 16) and (labels == real.labels[:20]).all()

    def patches(image: np.ndarray) -> list[bytes]:
        cut = [image[:, i : i + 4, j : j + 4] for i in range(0, 16, 4) for j in range(0, 16, 4)]
        return [patch.tobytes() for patch in cut]

    for before, after in zip(real.images, images, strict=False):
        assert patches(before) != patches(after) and sorted(patches(before)) == sorted(
            patches(after)
        )
    assert (shuffled(real, 1)[0] == real.images[:20]).all()


def test_classes_are_left_out_and_swapped_by_the_fraction_told(real: Real) -> None:
    images, labels = without_classes(real, 0.3)
    assert len(images) == 20 and set(labels) == set(range(7))
    assert all((image == real.images[real.labels == label]).all((1, 2, 3)).any()
               for image, label in zip(images, labels, strict=True))  # fmt: skip
    with pytest.raises(PagodaError, match="4 classes have 16 held-out images"):
        without_classes(real, 0.6)
    images, labels = mislabelled(real, 0.25)
    assert (images == real.images[:20]).all() and (labels != real.labels[:20]).sum() == 5


def test_noise_has_its_deviation_and_blur_keeps_what_is_flat(real: Real) -> None:
    grey = Real(np.full((64, 3, 32, 32), 128, np.uint8), np.zeros(64, int), 64)
    assert noised(grey, 16)[0].std() == pytest.approx(16, rel=0.01)
    assert (blurred(grey, 2)[0] == 128).all()
    assert blurred(real, 2)[0].std() < 0.3 * real.images.std()


def test_a_run_without_images_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match="holds no images; 'dvc repro downsample' makes them"):
        known_truth.measure(tmp_path, ["classifier"], 10)


def test_the_committed_page_is_that_of_its_rows_and_its_summary_is_in_the_documentation(
    tmp_path: Path,
) -> None:
    rows = known_truth_page.read(ROOT / FOLDER)
    known_truth_page.write(rows, tmp_path / "page")
    for name in (REPORT, RESULTS):
        assert (tmp_path / "page" / name).read_text() == (ROOT / FOLDER / name).read_text()
    summary = known_truth_page.summary_table(known_truth_page.by_evaluator(rows))
    lines, _, _ = block_text(summary).partition("\n\n")
    assert lines in (ROOT / "docs" / "metrics.md").read_text()


def test_the_page_marks_what_holds_and_what_does_not() -> None:
    """Of the committed rows, with the distances of blur in reverse order."""
    found = known_truth_page.by_evaluator(known_truth_page.read(ROOT / FOLDER))
    name, own = next(iter(found.items()))
    blurs = sorted((at for at in own if (at.kind, at.metric) == ("blur", "fd")), key=repr)
    turned = own | dict(zip(blurs, (own[at] for at in reversed(blurs)), strict=True))
    for rows, mark in ((own, "✓"), (turned, "✗")):
        texts = {r[0].text: r[1].text for r in known_truth_page.rule_table({name: rows}).rows}
        assert texts["blur: FD rises"].startswith(mark)
        assert texts["noise: FD rises"].startswith("✓")
    del own[blurs[0]]
    (line, *_) = known_truth_page.rule_table({name: own}).rows
    assert [cell.text for cell in line] == ["blur: FD rises", "–"]
