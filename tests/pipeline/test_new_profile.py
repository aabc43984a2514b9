"""A profile for one's own images: it says what is there, composes, and is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagoda.config import parse
from pagoda.errors import PagodaError
from pagoda.pipeline.derive import profile_tree
from pagoda.pipeline.new_profile import Found, look, sides_for, warnings, write
from tests.tiny import ROOT


def make_images(folder: Path, counts: dict[str, int], side: int = 40) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (side + i % 3, side, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i:03d}.png")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments", symlinks=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


@pytest.mark.longer
def test_a_profile_of_a_folder_composes_and_says_what_was_found(project: Path) -> None:
    images = make_images(project / "images", {"cat": 40, "dog": 25})
    told = "\n".join(write(str(images), "pets", project, "cpu", probed=False))
    assert "52 for training, 2 classes (cat, dog), dog the smallest with 20" in told
    assert "held out  13, 20% of each class" in told
    assert "40 pixels" in told and "16 -> 32 on a CPU" in told and "PFLOP" in told
    config = parse(profile_tree("pets", project))
    assert (config.data.source, config.data.num_classes) == ("folder", 2)
    assert config.data.path == str(images) and config.data.hub is None
    assert config.resolutions == [16, 32] and config.report.real_images
    lines = (project / "experiments/profile/pets.yaml").read_text().splitlines()
    assert len(lines) < 40
    with pytest.raises(PagodaError, match=r"pets\.yaml is there already"):
        write(str(images), "pets", project, "cpu", probed=False)


def test_the_sets_own_splits_are_kept(project: Path) -> None:
    make_images(project / "images" / "train", {"a": 21, "b": 21})
    make_images(project / "images" / "val", {"a": 6, "b": 5})
    found = look(str(project / "images"))
    assert (found.train, found.test, found.share) == (42, 11, None)


def test_images_without_folders_are_one_class_and_a_zip_is_a_folder(project: Path) -> None:
    flat = make_images(project / "around", {"flat": 30}) / "flat"
    assert look(str(flat)).classes == ("all",)
    wrapped = look(str(flat.parent))
    assert (wrapped.classes, wrapped.train) == (("all",), look(str(flat)).train)
    tarred = look(shutil.make_archive(str(project / "flat"), "tar", flat.parent))
    assert (tarred.classes, tarred.train) == (("all",), wrapped.train)
    pets = make_images(project / "pets", {"cat": 20, "dog": 20})
    archive = shutil.make_archive(str(project / "pets"), "zip", pets)
    zipped, plain = look(archive), look(str(pets))
    assert (zipped.source, plain.source) == ("zip", "folder")
    assert (zipped.classes, zipped.train) == (plain.classes, plain.train)


def found(side: int, one_size: bool = False, **changed: int) -> Found:
    known = {"train": 5000, "test": 500} | changed
    sides = (side, side, side) if one_size else (side, side, side + 20)
    return Found("folder", "x", ("a", "b"), known["train"], known["test"], 0.1, ("a", 9), sides,
                 one_size, "")  # fmt: skip


@pytest.mark.parametrize(
    ("one", "device", "wanted"),
    [
        (found(44), "cpu", (16, 32)),
        (found(300), "cpu", (16, 32)),
        (found(300), "gpu", (32, 128)),
        (found(100), "gpu", (16, 64)),
        (found(28, one_size=True), "cpu", (16, 32)),  # padded, as Fashion-MNIST
        (found(28), "cpu", (8, 16)),
        (found(8, one_size=True), "cpu", (8, 8)),
        (found(600), "gpu", (32, 128)),
    ],
)
def test_resolutions_fit_images_and_machine(
    one: Found, device: str, wanted: tuple[int, int]
) -> None:
    assert sides_for(one, device, None, None) == wanted


@pytest.mark.parametrize(
    ("one", "target", "fits"),
    [(found(32, one_size=True), 64, 32), (found(28, one_size=True), 64, 32), (found(40), 64, 32)],
)
def test_a_target_that_all_images_are_below_is_refused(one: Found, target: int, fits: int) -> None:
    """Not padded with black without a word; an image that is large enough makes it possible."""
    with pytest.raises(PagodaError, match=f"--target {target}, but .*; --target {fits} fits them"):
        sides_for(one, "cpu", None, target)
    assert sides_for(one, "cpu", None, fits)[1] == fits
    assert sides_for(found(50), "cpu", 8, 64) == (8, 64)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_large_target_is_grown_from_the_largest_base_there_are_levels_for(device: str) -> None:
    """The profile's own teacher says which: its network halves down to lowest_res."""
    profile = {"cpu": "imagenette_cpu", "gpu": "imagenette"}[device]
    network = profile_tree(profile, ROOT)["teacher"]["network"]
    largest = network["lowest_res"] << len(network["channel_mult"]) - 1
    assert sides_for(found(2000), device, None, 1024) == (largest, 1024)
    assert sides_for(found(2000), device, largest, 1024) == (largest, 1024)
    with pytest.raises(PagodaError, match=rf"--base {2 * largest} is above {largest}, .*{profile}"):
        sides_for(found(2000), device, 2 * largest, 1024)


@pytest.mark.longer
def test_a_profile_of_others_is_not_replaced(project: Path) -> None:
    images = str(make_images(project / "images", {"cat": 40, "dog": 25}))
    smoke, mine = (project / f"experiments/profile/{name}.yaml" for name in ("smoke", "mine"))
    before = smoke.read_text("utf-8")
    with pytest.raises(PagodaError, match=r"smoke\.yaml is there .* did not write it; choose"):
        write(images, "smoke", project, "cpu", replace=True, probed=False)
    assert smoke.read_text("utf-8") == before
    write(images, "mine", project, "cpu", probed=False)
    first = mine.read_text("utf-8")
    write(images, "mine", project, "cpu", base=8, replace=True, probed=False)
    assert mine.read_text("utf-8") != first


def test_what_is_too_little_is_said() -> None:
    told = " ".join(warnings(found(40, train=120, test=12), 32))
    assert "120 images are few" in told and "12 images are held out" in told
    assert "class a has 9 images" in told
    assert any("enlarged to 64" in line for line in warnings(found(40), 64))
    assert "images of 28 pixels are padded with black to 32." in warnings(found(28, True), 32)
    assert warnings(found(64, one_size=True, train=5000), 32) == [
        "class a has 9 images; join classes, or drop it."
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": "nowhere"}, "nowhere is not there"),
        ({"images": "few"}, r"few has \d+ training images; 20 are the least"),
        ({"images": "note.txt"}, "no folder and no archive"),
        ({"images": "empty"}, "empty holds no images; 1 file passed over: .txt 1"),
        ({"images": "tiny"}, "tiny has images of 4 pixels; the least are 8"),
        (
            {"images": "made.npz"},
            "made.npz lacks x_train; .* and y_test are needed",
        ),
        ({"name": "a/b"}, "--name 'a/b'"),
        ({"target": 48}, "--target 48; it must be a power of two"),
        ({"base": 64, "target": 32}, "--base 64 is above --target 32"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(project)
    make_images(project / "good", {"a": 30, "b": 30})
    make_images(project / "few", {"a": 5, "b": 5})
    make_images(project / "tiny", {"a": 30}, side=4)
    (project / "empty").mkdir()
    (project / "empty/note.txt").write_text("x")
    (project / "note.txt").write_text("x")
    np.savez(project / "made.npz", np.zeros((2, 8, 8, 3), np.uint8))
    before = sorted((project / "experiments/profile").iterdir())
    given: dict[str, object] = {"images": "good", "name": "mine"} | arguments
    images, name = str(given.pop("images")), str(given.pop("name"))
    with pytest.raises(PagodaError, match=message) as error:
        write(images, name, project, "cpu", probed=False, **given)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert sorted((project / "experiments/profile").iterdir()) == before
