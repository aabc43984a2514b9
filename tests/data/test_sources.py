"""What holds for every kind of source: a balanced order, limits, fingerprints, named trouble."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import numpy as np
import pytest

from pagoda import artifacts
from pagoda.config import parse
from pagoda.data import registry
from pagoda.data.base import interleave
from pagoda.data.embedded import CLASSES, render
from pagoda.errors import PagodaError
from pagoda.evaluation.files import open_images
from pagoda.pipeline.stages import downsample
from tests.data.animals import npz, opened, tarred, zipped
from tests.tiny import smoke_tree


def test_order_takes_classes_in_turn() -> None:
    labels = np.array([2, 2, 0, 0, 0, 1, 2, 0])
    order = interleave(labels)
    assert order.tolist() == [2, 5, 0, 3, 1, 4, 6, 7]
    balanced = np.random.default_rng(0).permutation(np.arange(100) % 10)
    assert np.array_equal(balanced[interleave(balanced)], np.arange(100) % 10)


def test_a_file_that_is_no_source_is_named_and_the_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files beside those of the package, as one is added."""
    package = importlib.import_module(registry.PACKAGE)
    monkeypatch.setattr(package, "__path__", [str(tmp_path), *package.__path__])
    (tmp_path / "aaa.py").write_text("import no_such_package\n")
    (tmp_path / "bbb.py").write_text("source = 3\n")
    assert {"aaa", "bbb", "npz"} <= {*registry.names()}
    wrong = "pagoda/data/sources/aaa.py cannot be imported: No module named 'no_such_package'"
    with pytest.raises(PagodaError, match=wrong):
        registry.find("aaa")
    with pytest.raises(PagodaError, match=r"sources/bbb\.py has no SOURCE, a Source"):
        registry.find("bbb")
    assert registry.reading("set.npz") == "npz"
    (tmp_path / "ccc.py").write_text(
        "from pagoda.data.registry import Source\nSOURCE = Source(print, endings=('.npz',))\n"
    )
    with pytest.raises(PagodaError, match=r"^ccc and npz both read files that end like set\.npz$"):
        registry.reading("set.npz")


def test_embedded_source_draws_the_embedded_set() -> None:
    source = opened("embedded", num_classes=10, limit=25, split="test")
    images, labels = render(np.arange(25), resolution=16, seed=0, split="test")
    assert source.classes == CLASSES and np.array_equal(source.labels, labels)
    whole, part = source.array(), source.array(3, 9)
    assert whole is not None and np.array_equal(whole, images)
    assert part is not None and np.array_equal(part, images[3:9])
    assert np.array_equal(np.asarray(source.load(7)), images[7].transpose(1, 2, 0))
    assert len(set(source.names)) == len(source) == 25
    assert len(opened("embedded", num_classes=10, limit=4)) == 4


def test_embedded_source_needs_a_size() -> None:
    with pytest.raises(PagodaError, match=r"data\.train_images must say how many"):
        opened("embedded", num_classes=10)


def test_limit_keeps_a_balanced_prefix(folder: Path, tmp_path: Path) -> None:
    file = npz(tmp_path / "set.npz")
    for kind, path, options in (
        ("folder", folder, {}), ("npz", file, {}), ("embedded", None, {"num_classes": 10}),
    ):  # fmt: skip
        whole = opened(kind, path, **({"limit": 9} | options))
        part = opened(kind, path, **({"limit": 6} | options))
        assert len(part) == 6 and part.names == whole.names[:6]
        assert np.array_equal(part.labels, whole.labels[:6])
        counts = np.bincount(part.labels)
        assert counts.max() - counts.min() <= 1 or kind == "embedded"


def test_fingerprints_follow_the_content(folder: Path, tmp_path: Path) -> None:
    file, archive = npz(tmp_path / "a.npz"), zipped(folder)
    for kind, path in (("folder", folder), ("zip", archive), ("npz", file)):
        assert opened(kind, path).fingerprint() == opened(kind, path).fingerprint()
        assert opened(kind, path).fingerprint() != opened(kind, path, split="test").fingerprint()
        assert opened(kind, path).fingerprint() != opened(kind, path, limit=6).fingerprint()
    packed = {"folder": folder, "zip": archive, "tar": tarred(folder)}
    before = {kind: opened(kind, path).fingerprint() for kind, path in packed.items()}
    assert len(set(before.values())) == 1  # of one content, whatever holds it
    changed_file = folder / "train" / "ant" / "0.png"
    size = changed_file.stat().st_size
    changed_file.write_bytes(changed_file.read_bytes()[:-1] + b"\0")  # a byte of the same size
    assert changed_file.stat().st_size == size
    zipped(folder), tarred(folder)
    for kind, path in packed.items():
        assert opened(kind, path).fingerprint() != before[kind]
    x = np.load(file)["x_train"].copy()
    x[4, 2, 2] ^= 1
    changed = npz(tmp_path / "b.npz", x_train=x)
    assert opened("npz", changed).fingerprint() != opened("npz", file).fingerprint()
    prints = {
        opened("embedded", num_classes=10, limit=20, **how).fingerprint()
        for how in ({}, {"seed": 1}, {"render_res": 32}, {"split": "test"})
    }
    assert len(prints) == 4


def test_missing_paths_are_named(tmp_path: Path) -> None:
    for kind in ("folder", "zip", "npz"):
        with pytest.raises(PagodaError, match=f"data.path = {tmp_path}/none: there is no such"):
            opened(kind, tmp_path / "none")
        with pytest.raises(PagodaError, match=r"data\.path is null"):
            opened(kind)
    for kind in ("torchvision", "hub"):
        with pytest.raises(PagodaError, match=r"data\.hub is null"):
            opened(kind)
    with pytest.raises(PagodaError, match=r"data.source = 'ftp'"):
        opened("ftp")
    with pytest.raises(PagodaError, match="split = 'val'"):
        opened("npz", tmp_path, split="val")


@pytest.mark.parametrize("size", [0, 10, 400])
def test_archives_that_end_early_are_named(folder: Path, tmp_path: Path, size: int) -> None:
    archive, arrays = zipped(folder), npz(tmp_path / "set.npz")
    for kind, path in (("zip", archive), ("npz", arrays)):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(PagodaError, match=f"{path.name} ends early.*copy it again"):
            opened(kind, path)


def test_a_wrong_number_of_classes_is_named(folder: Path, tmp_path: Path) -> None:
    file = npz(tmp_path / "set.npz")
    for kind, path in (("folder", folder), ("npz", file)):
        with pytest.raises(PagodaError, match=r"has 3 classes, data\.num_classes = 10"):
            opened(kind, path, num_classes=10)
    with pytest.raises(PagodaError, match=r"has 10 classes, data\.num_classes = 3"):
        opened("embedded", limit=10)
    with pytest.raises(PagodaError, match="class 3 has no train images"):
        opened("npz", npz(tmp_path / "nameless.npz", classes=None), num_classes=4)


def test_asking_for_more_images_than_there_are_is_named(folder: Path, tmp_path: Path) -> None:
    file = npz(tmp_path / "set.npz")
    for kind, path in (("folder", folder), ("zip", zipped(folder)), ("npz", file)):
        with pytest.raises(PagodaError, match=r"has 9 train images, data\.train_images = 10"):
            opened(kind, path, limit=10)
        with pytest.raises(PagodaError, match=r"has 4 test images, data\.test_images = 10"):
            opened(kind, path, limit=10, split="test")


@pytest.mark.parametrize(
    ("kind", "path", "classes"),
    [("npz", "fashion_mnist.npz", 10), ("zip", "imagenette128.zip", 10)],
)
def test_real_sets_open(kind: str, path: str, classes: int) -> None:
    place = Path(os.environ.get("PAGODA_REAL_DATA", "no such folder")) / path
    if not place.is_file():
        pytest.skip(f"PAGODA_REAL_DATA names no folder with {path}")
    source = opened(kind, place, num_classes=classes, limit=1000, split="test")
    assert np.bincount(source.labels).tolist() == [100] * 10
    assert source.load(999).mode == "RGB"
    assert np.asarray(source.load(999)).std() > 1


def test_an_artifact_is_scored_by_its_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = smoke_tree(**{"data.train_images": 10, "data.test_images": 70})
    config = parse(tree)
    downsample.run(config, 8)
    folder = Path("runs") / config.name / "data" / "8"
    with pytest.raises(PagodaError, match="--split says which"):
        open_images(folder)
    array = artifacts.open_artifact(folder, "images").array("test_images")
    assert np.array_equal(open_images(folder, "test").read(np.arange(70)), array)
    with pytest.raises(PagodaError, match=r"data\.test_images must say how many"):
        open_images(Path("embedded:"))
