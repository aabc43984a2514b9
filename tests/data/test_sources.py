"""Every kind of source: what goes in comes out, in a balanced order; what is wrong is named."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pagoda.data.base import ImageSource, interleave
from pagoda.data.embedded import CLASSES, render
from pagoda.data.resize import cut
from pagoda.data.sources import open_source
from pagoda.errors import PagodaError

ANIMALS = {"train": {"bee": 4, "ant": 2, "cat": 3}, "test": {"ant": 1, "bee": 2, "cat": 1}}


def opened(kind: str, path: object = None, **changes: Any) -> ImageSource:
    options: dict[str, Any] = {
        "split": "train", "hub": None, "num_classes": 3, "limit": None, "render_res": 16, "seed": 0,
    }  # fmt: skip
    return open_source(kind, path=None if path is None else str(path), **(options | changes))


def pixels(split: str, name: str, number: int) -> np.ndarray:
    rng = np.random.default_rng([len(split), *name.encode(), number])
    return rng.integers(0, 256, (6 + number, 9, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of several sizes, beside files that are no images."""
    root = tmp_path / "animals"
    for split, classes in ANIMALS.items():
        for name, count in classes.items():
            (root / split / name / "more").mkdir(parents=True)
            for i in range(count):
                place = root / split / name / ("more" if i == count - 1 else "")
                Image.fromarray(pixels(split, name, i)).save(place / f"{i}.png")
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"no image")
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / "list.csv").write_text("no image")
    return root


def zipped(folder: Path, prefix: str = "") -> Path:
    path = folder.parent / "animals.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def npz(path: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.integers(0, 256, (9, 5, 7), dtype=np.uint8),
        "y_train": np.array([0, 0, 0, 1, 2, 1, 1, 2, 2], np.uint8),
        "x_test": rng.integers(0, 256, (4, 5, 7), dtype=np.uint8),
        "y_test": np.array([2, 1, 0, 0]),
        "classes": np.array(["shoe", "shirt", "bag"]),
    } | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_order_takes_classes_in_turn() -> None:
    labels = np.array([2, 2, 0, 0, 0, 1, 2, 0])
    order = interleave(labels)
    assert order.tolist() == [2, 5, 0, 3, 1, 4, 6, 7]
    balanced = np.random.default_rng(0).permutation(np.arange(100) % 10)
    assert np.array_equal(balanced[interleave(balanced)], np.arange(100) % 10)


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


@pytest.mark.parametrize("kind", ["folder", "zip", "zip with a folder around"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_folder_and_zip_round_trip(folder: Path, kind: str, split: str) -> None:
    kind, _, wrapped = kind.partition(" ")
    path = folder if kind == "folder" else zipped(folder, "animals/" if wrapped else "")
    source = opened(kind, path, split=split)
    assert source.classes == ("ant", "bee", "cat")
    wanted = sorted((i, name) for name, n in ANIMALS[split].items() for i in range(n))
    assert [(source.classes[y]) for y in source.labels] == [name for _, name in wanted]
    for k, (i, name) in enumerate(wanted):
        assert np.array_equal(np.asarray(source.load(k)), pixels(split, name, i))
    assert source.array() is None
    assert len(set(source.names)) == len(source)
    assert source.names[1] == f"{split}/bee/0.png"


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_sources_work_in_another_process(folder: Path, kind: str) -> None:
    source = opened(kind, folder if kind == "folder" else zipped(folder))
    source.load(0)
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(np.asarray(copy.load(5)), np.asarray(source.load(5)))


def test_val_stands_in_for_a_test_folder_without_classes(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    (folder / "test").mkdir()
    Image.fromarray(pixels("test", "ant", 0)).save(folder / "test" / "unlabelled.png")
    assert opened("folder", folder, split="test").names[0] == "val/ant/more/0.png"
    assert opened("zip", zipped(folder), split="test").names[0] == "val/ant/more/0.png"


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_npz_round_trip(tmp_path: Path, channels: int | None) -> None:
    rng = np.random.default_rng(1)
    shape = (9, 5, 7) if channels is None else (9, 5, 7, channels)
    x = rng.integers(0, 256, shape, dtype=np.uint8)
    source = opened("npz", npz(tmp_path / "set.npz", x_train=x))
    assert source.classes == ("shoe", "shirt", "bag")
    assert source.labels.tolist() == [0, 1, 2] * 3 and source.labels.dtype == np.int64
    order = [0, 3, 4, 1, 5, 7, 2, 6, 8]
    assert source.names == [f"x_train[{i}]" for i in order]
    expected = np.broadcast_to(x.reshape(9, 5, 7, -1), (9, 5, 7, 3))[order]
    for i in range(9):
        assert np.array_equal(np.asarray(source.load(i)), expected[i])
    array = source.array()
    assert array is not None
    assert np.array_equal(np.broadcast_to(array, (9, 3, 5, 7)), expected.transpose(0, 3, 1, 2))


def test_npz_without_class_names_or_with_pickled_ones_numbers_them(tmp_path: Path) -> None:
    assert opened("npz", npz(tmp_path / "a.npz", classes=None)).classes == ("0", "1", "2")
    names = np.array(["shoe", None, "bag"], dtype=object)
    assert opened("npz", npz(tmp_path / "b.npz", classes=names)).classes == ("0", "1", "2")


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
    before = {"folder": opened("folder", folder), "zip": opened("zip", archive)}
    Image.fromarray(pixels("train", "ant", 9)).save(folder / "train" / "ant" / "0.png")
    zipped(folder)
    for kind, path in (("folder", folder), ("zip", archive)):
        assert opened(kind, path).fingerprint() != before[kind].fingerprint()
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


def test_layout_without_splits_is_explained(folder: Path) -> None:
    for source in ("train", "test"):
        with pytest.raises(PagodaError, match="layout wanted is train/CLASS/IMAGE"):
            opened("folder", folder / "train", split=source)
    archive = folder.parent / "flat.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", b"")
        file.writestr("b.png", b"")
    with pytest.raises(PagodaError, match="layout wanted is train/CLASS/IMAGE"):
        opened("zip", archive)


@pytest.mark.parametrize("size", [0, 10, 400])
def test_archives_that_end_early_are_named(folder: Path, tmp_path: Path, size: int) -> None:
    archive, arrays = zipped(folder), npz(tmp_path / "set.npz")
    for kind, path in (("zip", archive), ("npz", arrays)):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(PagodaError, match=f"{path.name} ends early.*copy it again"):
            opened(kind, path)


def test_bytes_damaged_inside_an_npz_are_found(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz")
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF  # among the pixels of the first member
    path.write_bytes(content)
    with pytest.raises(PagodaError, match=r"x_train is damaged.*copy the file again"):
        opened("npz", path)


def test_other_files_are_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(PagodaError, match="no npz file"):
        opened("npz", tmp_path / "plain.npy")
    with pytest.raises(PagodaError, match="no npz file"):
        opened("npz", tmp_path / "text.npz")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_an_image_that_does_not_decode_is_named(folder: Path, kind: str, damage: str) -> None:
    file = folder / "train" / "bee" / "0.png"
    content = {"truncated": file.read_bytes()[:-40], "text": b"hello", "empty": b""}
    file.write_bytes(content[damage])
    source = opened(kind, folder if kind == "folder" else zipped(folder))
    assert len(source) == 9  # never skipped
    with pytest.raises(PagodaError, match=r"train image 1 of .*\(train/bee/0\.png\) does not") as e:
        source.load(1)
    assert "\n" not in str(e.value)
    source.load(0), source.load(2)


def test_an_image_damaged_inside_an_archive_is_named(folder: Path) -> None:
    archive = zipped(folder)
    with zipfile.ZipFile(archive) as file:
        info = file.getinfo("train/ant/0.png")
    content = bytearray(archive.read_bytes())
    content[info.header_offset + 120] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(PagodaError, match=r"train image 0 of .*train/ant/0\.png.*CRC"):
        opened("zip", archive).load(0)


def test_an_image_without_a_rule_or_gone_is_named(folder: Path) -> None:
    ant = folder / "train" / "ant"
    Image.new("F", (4, 4)).save(ant / "00.tiff")
    source = opened("folder", folder)
    (ant / "0.png").unlink()
    with pytest.raises(PagodaError, match=r"train/ant/0\.png\) does not decode"):
        source.load(0)
    with pytest.raises(PagodaError, match=r"ant/00\.tiff\) does not decode .*floating-point"):
        source.load(source.names.index("train/ant/00.tiff"))


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_without_images_is_named(folder: Path, kind: str, split: str) -> None:
    for file in (folder / split / "bee").rglob("*.png"):
        file.unlink()
    with pytest.raises(PagodaError, match=f"class bee has no {split} images"):
        opened(kind, folder if kind == "folder" else zipped(folder), split=split)


def test_a_class_unknown_to_training_is_named(folder: Path) -> None:
    (folder / "test" / "cat").rename(folder / "test" / "dog")
    with pytest.raises(PagodaError, match="class dog is in test but not in train"):
        opened("folder", folder, split="test")


def test_a_wrong_number_of_classes_is_named(folder: Path, tmp_path: Path) -> None:
    file = npz(tmp_path / "set.npz")
    for kind, path in (("folder", folder), ("npz", file)):
        with pytest.raises(PagodaError, match=r"has 3 classes, data\.num_classes = 10"):
            opened(kind, path, num_classes=10)
    with pytest.raises(PagodaError, match=r"has 10 classes, data\.num_classes = 3"):
        opened("embedded", limit=10)
    with pytest.raises(PagodaError, match="class 3 has no train images"):
        opened("npz", npz(tmp_path / "nameless.npz", classes=None), num_classes=4)


def test_labels_out_of_range_are_named(tmp_path: Path) -> None:
    path = npz(tmp_path / "set.npz", y_train=np.array([0, 1, 2, 0, 1, 7, 0, 1, 2]))
    with pytest.raises(PagodaError, match=r"label 7 of train image 5 is out of range.*0 to 2"):
        opened("npz", path)
    path = npz(tmp_path / "set.npz", y_train=np.array([0, -1, 2, 0, 1, 1, 0, 1, 2]))
    with pytest.raises(PagodaError, match="label -1 of train image 1"):
        opened("npz", path)


def test_arrays_that_make_no_images_are_named(tmp_path: Path) -> None:
    mixed = np.empty(9, object)
    mixed[:] = [np.zeros((4 + i % 2, 4), np.uint8) for i in range(9)]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"x_train": mixed}, "x_train is no plain array .mixed sizes"),
        ({"x_train": np.zeros((9, 4, 4), np.float32)}, "x_train is float32"),
        ({"x_train": np.zeros((9, 4, 4, 4), np.uint8)}, "x_train is uint8 with shape"),
        ({"x_train": np.zeros((8, 4, 4), np.uint8)}, "8 images and 9 labels"),
        ({"x_train": None}, "lacks x_train"),
        ({"y_train": np.linspace(0, 2, 9)}, "y_train must hold one whole number an image"),
    ]
    for i, (changes, message) in enumerate(cases):
        with pytest.raises(PagodaError, match=message):
            opened("npz", npz(tmp_path / f"{i}.npz", **changes))


def test_asking_for_more_images_than_there_are_is_named(folder: Path, tmp_path: Path) -> None:
    file = npz(tmp_path / "set.npz")
    for kind, path in (("folder", folder), ("zip", zipped(folder)), ("npz", file)):
        with pytest.raises(PagodaError, match=r"has 9 train images, data\.train_images = 10"):
            opened(kind, path, limit=10)
        with pytest.raises(PagodaError, match=r"has 4 test images, data\.test_images = 10"):
            opened(kind, path, limit=10, split="test")


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def test_torchvision_set_from_its_own_files(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    x = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    for stem in ("train", "t10k"):
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(x))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx((np.arange(20) % 10).astype(np.uint8)))
    source = opened("torchvision", tmp_path, hub="FashionMNIST", num_classes=10)
    assert source.classes[9] == "Ankle boot" and source.labels.tolist() == [*range(10)] * 2
    assert np.array_equal(np.asarray(source.load(12))[..., 0], x[12])
    array = source.array()
    assert array is not None and np.array_equal(array[:, 0], x)


def test_torchvision_imagenette_equals_its_files_in_a_zip(tmp_path: Path) -> None:
    """As torchvision unpacks it: imagenette2/{train,val}/SYNSET/*.JPEG, no split called test."""
    from torchvision.datasets import Imagenette

    root, rng = tmp_path / "downloads" / "imagenette2", np.random.default_rng(0)
    synsets = sorted(Imagenette._WNID_TO_CLASS)
    for k, name in enumerate(synsets):
        for split, count in (("train", 2 + k % 2), ("val", 1)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                content = rng.integers(0, 256, (20 + i, 24, 3), dtype=np.uint8)
                image = Image.fromarray(content).convert("L" if k == 3 else "RGB")
                image.save(root / split / name / f"{name}_{i}.JPEG")
    for split, n in (("train", 25), ("test", 10)):
        how = {"split": split, "num_classes": 10}
        source = opened("torchvision", root.parent, hub="Imagenette", **how)
        packed = opened("zip", zipped(root, "imagenette2/"), **how)
        assert source.classes == packed.classes == tuple(synsets) and len(source) == n
        assert source.labels.tolist() == packed.labels.tolist()
        assert [f"imagenette2/{name}" for name in packed.names] == source.names
        for i in range(n):
            first, second = (np.asarray(s.load(i)) for s in (source, packed))
            assert np.array_equal(first, second)
        assert len(pickle.dumps(source)) > 0  # other processes decode it
    again = opened("torchvision", root.parent, hub="Imagenette", num_classes=10).fingerprint()
    (root / "train" / synsets[0] / f"{synsets[0]}_0.JPEG").unlink()
    source = opened("torchvision", root.parent, hub="Imagenette", num_classes=10)
    assert source.fingerprint() != again


def test_torchvision_offline_points_to_the_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    nowhere = ["http://127.0.0.1:9/"]  # the discard port: refused at once
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", nowhere)
    with pytest.raises(PagodaError, match=r"cannot get FashionMNIST.*data\.path") as error:
        opened("torchvision", tmp_path, hub="FashionMNIST", num_classes=10)
    assert "\n" not in str(error.value)
    with pytest.raises(PagodaError, match="torchvision has no data set of that name"):
        opened("torchvision", tmp_path, hub="NoSuchSet")


def test_hub_without_its_package_says_how_to_get_it() -> None:
    try:
        import datasets  # noqa: F401
    except ImportError:
        with pytest.raises(PagodaError, match=r"needs the package datasets.*data\.source=folder"):
            opened("hub", hub="mnist")
    else:
        pytest.skip("datasets is installed")


def test_hub_set_from_a_local_folder(folder: Path) -> None:
    pytest.importorskip("datasets")
    for file in folder.rglob("more/*.png"):  # datasets finds labels in flat folders only
        file.rename(file.parent.parent / file.name)
    source = opened("hub", hub=str(folder))
    assert source.classes == ("ant", "bee", "cat") and len(source) == 9
    seen = {np.asarray(source.load(i)).tobytes() for i in range(9)}
    assert seen == {pixels("train", c, i).tobytes() for c, n in ANIMALS["train"].items()
                    for i in range(n)}  # fmt: skip


def test_hub_split_with_withheld_labels_gives_way_to_validation(tmp_path: Path) -> None:
    """As ImageNet's test split, whose labels are all -1."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cat"])}
    )
    for split, labels in (("train", [0, 1, 2]), ("validation", [2, 1, 0]), ("test", [-1, -1, -1])):
        images = [Image.fromarray(pixels(split, "ant", i)) for i in range(3)]
        rows = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        rows.to_parquet(str(tmp_path / "data" / f"{split}-00000-of-00001.parquet"))
    source = opened("hub", hub=str(tmp_path), split="test")
    assert source.labels.tolist() == [0, 1, 2]
    assert np.array_equal(np.asarray(source.load(0)), pixels("validation", "ant", 2))


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


def tarred(folder: Path, prefix: str = "./") -> Path:
    path = folder.parent / "animals.tar"
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.add(file, prefix + file.relative_to(folder).as_posix(), recursive=False)
    return path


@pytest.mark.parametrize("prefix", ["./", "", "around/"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_tar_archive_equals_the_folder(folder: Path, prefix: str, split: str) -> None:
    ours, plain = (
        opened("tar", tarred(folder, prefix), split=split),
        opened("folder", folder, split=split),
    )
    assert ours.names == plain.names and ours.classes == plain.classes
    assert np.array_equal(ours.labels, plain.labels)
    copy = pickle.loads(pickle.dumps(ours))
    for i in range(len(plain)):
        assert np.array_equal(np.asarray(copy.load(i)), np.asarray(plain.load(i)))


def test_tar_archives_that_end_early_are_named(folder: Path) -> None:
    """Inside a file, inside a header, and exactly between two files."""
    path = tarred(folder)
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    for size in (0, 100, last.offset_data + 10, last.offset, last.offset + 100):
        path.write_bytes(whole[:size])
        with pytest.raises(PagodaError, match=r"animals\.tar ends early.*copy it again"):
            opened("tar", path)


def test_a_compressed_tar_says_how_to_unpack_it(folder: Path) -> None:
    path = tarred(folder)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(PagodaError, match=r"gzip.*tar -xf animals\.tar.*data\.source=folder"):
        opened("tar", path)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_that_is_there_twice_is_refused(folder: Path, kind: str) -> None:
    content = (folder / "train" / "ant" / "0.png").read_bytes()
    if kind == "zip":
        path = zipped(folder)
        with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            archive.writestr("train/ant/0.png", content)
    else:
        path = tarred(folder)
        with tarfile.open(path, "a") as more:
            more.add(folder / "train" / "ant" / "0.png", "train/ant/0.png")
    with pytest.raises(PagodaError, match=r"holds train/ant/0\.png twice"):
        opened(kind, path)


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_set_without_splits_holds_a_share_out(folder: Path, kind: str) -> None:
    flat = folder / "train"
    for name in ANIMALS["train"]:
        for i in range(20):
            Image.fromarray(pixels("train", name, i)).save(flat / name / f"{i}.png")
    path = {"folder": lambda: flat, "zip": lambda: zipped(flat), "tar": lambda: tarred(flat)}[
        kind
    ]()
    train, test = (opened(kind, path, split=s, test_share=0.25) for s in ("train", "test"))
    assert not set(train.names) & set(test.names)
    everything = {f.relative_to(flat).as_posix() for f in flat.rglob("[0-9]*.png")}
    assert set(train.names) | set(test.names) == everything
    sizes = np.array([sum(n.startswith(f"{c}/") for n in everything) for c in train.classes])
    assert np.array_equal(np.bincount(test.labels), np.round(sizes / 4))
    for source in (train, test):
        for name, label in zip(source.names, source.labels, strict=True):
            assert name.split("/")[0] == source.classes[label]
    # One more image does not reshuffle the others.
    again = opened("folder", flat, split="test", test_share=0.25)
    assert again.names == test.names


def test_holding_out_needs_two_images_a_class_or_no_classes(folder: Path) -> None:
    for file in (folder / "train" / "ant").rglob("*.png"):
        file.unlink()
    Image.fromarray(pixels("train", "ant", 0)).save(folder / "train" / "ant" / "only.png")
    with pytest.raises(PagodaError, match=r"class of ant/only\.png has one image"):
        opened("folder", folder / "train", test_share=0.5)
    one = opened("folder", folder / "train", test_share=0.5, num_classes=1)
    assert one.classes == ("all",) and not one.labels.any()
    flat = folder / "train" / "bee"
    two = opened("folder", flat, split="test", test_share=0.5, num_classes=1)
    assert len(two) == 2


def imagenet(root: Path, prefix: str = "ILSVRC/Data/CLS-LOC/") -> list[str]:
    """Three synsets; returns those of the validation images, in the order of their names."""
    truth = ["n03", "n01", "n02", "n01"]
    for i, name in enumerate(["n01", "n02", "n03"] * 2):
        (root / prefix / "train" / name).mkdir(parents=True, exist_ok=True)
        place = root / prefix / "train" / name / f"{name}_{i}.JPEG"
        Image.fromarray(pixels("train", name, i)).save(place, "JPEG")
    (root / prefix / "val").mkdir()
    for i, name in enumerate(truth, 1):
        place = root / prefix / "val" / f"ILSVRC2012_val_{i:08d}.JPEG"
        Image.fromarray(pixels("val", name, i)).save(place, "JPEG")
    return truth


def kaggle(root: Path, truth: list[str]) -> None:
    rows = [f"ILSVRC2012_val_{i:08d},{n} 1 2 3 4 " for i, n in enumerate(truth, 1)]
    text = "\n".join(["ImageId,PredictionString", *rows[::-1]])  # its rows are in no order
    (root / "LOC_val_solution.csv").write_text(text)


def devkit(root: Path, truth: list[str]) -> None:
    """IDs follow the order n02, n03, n01, not that of names; one internal synset besides."""
    from scipy.io import savemat

    ids = {"n02": 1, "n03": 2, "n01": 3, "n99": 4}
    table = np.array([(i, n) for n, i in ids.items()], [("ILSVRC2012_ID", "f8"), ("WNID", "O")])
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": table})
    text = "".join(f"{ids[n]}\n" for n in truth)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(text)


@pytest.mark.parametrize("how", [kaggle, devkit])
@pytest.mark.parametrize("prefix", ["ILSVRC/Data/CLS-LOC/", ""])
@pytest.mark.parametrize("packed", [False, True])
def test_imagenet_as_it_is_distributed(
    tmp_path: Path, how: Callable[[Path, list[str]], None], prefix: str, packed: bool
) -> None:
    root = tmp_path / "in1k"
    truth = imagenet(root, prefix)
    how(root, truth)
    path = zipped(root) if packed else root
    train, test = (opened("imagenet", path, split=s) for s in ("train", "test"))
    assert train.classes == test.classes == ("n01", "n02", "n03")
    assert train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    for i, name in enumerate(test.names):
        number = int(name[-13:-5])
        assert test.classes[test.labels[i]] == truth[number - 1]
        with Image.open(root / prefix / "val" / name.rsplit("/", 1)[1]) as image:
            assert np.array_equal(np.asarray(test.load(i)), np.asarray(image))


def test_imagenet_with_val_in_synset_folders_needs_no_ground_truth(tmp_path: Path) -> None:
    truth = imagenet(tmp_path, "")
    for i, name in enumerate(truth, 1):
        (tmp_path / "val" / name).mkdir(exist_ok=True)
        file = tmp_path / "val" / f"ILSVRC2012_val_{i:08d}.JPEG"
        file.rename(tmp_path / "val" / name / file.name)
    test = opened("imagenet", tmp_path, split="test")
    assert sorted(test.classes[y] for y in test.labels) == sorted(truth)


def test_imagenet_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PagodaError, match="no train/SYNSET"):
        opened("imagenet", tmp_path)
    truth = imagenet(tmp_path, "")
    assert len(opened("imagenet", tmp_path)) == 6
    with pytest.raises(PagodaError, match=r"no ground truth of val/; put LOC_val_solution\.csv"):
        opened("imagenet", tmp_path, split="test")
    kaggle(tmp_path, truth[:-1])
    with pytest.raises(PagodaError, match="has no line for ILSVRC2012_val_00000004"):
        opened("imagenet", tmp_path, split="test")
    kaggle(tmp_path, ["n07", *truth[1:]])
    with pytest.raises(PagodaError, match="synset n07 is in val but not in train"):
        opened("imagenet", tmp_path, split="test")
    (tmp_path / "LOC_val_solution.csv").unlink()
    devkit(tmp_path, truth[:-1])
    with pytest.raises(PagodaError, match="3 lines for 4 images"):
        opened("imagenet", tmp_path, split="test")


def test_npz_without_a_test_split_holds_a_share_out(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", x_test=None, y_test=None)
    with pytest.raises(PagodaError, match="lacks x_test"):
        opened("npz", path, split="test")
    whole = np.load(path)
    train, test = (opened("npz", path, split=s, test_share=0.34) for s in ("train", "test"))
    rows = [int(n[8:-1]) for s in (train, test) for n in s.names]
    assert sorted(rows) == list(range(9)) and np.bincount(test.labels).tolist() == [1, 1, 1]
    for source in (train, test):
        array = source.array()
        assert array is not None
        where = [int(name[8:-1]) for name in source.names]
        assert np.array_equal(array[:, 0], whole["x_train"][where])
        assert np.array_equal(source.labels, whole["y_train"][where])
    assert train.fingerprint() != test.fingerprint()


def test_compressed_and_plain_npz_hold_the_same(tmp_path: Path) -> None:
    plain = npz(tmp_path / "a.npz")
    np.savez_compressed(tmp_path / "b.npz", **np.load(plain))
    a, b = opened("npz", plain), opened("npz", tmp_path / "b.npz")
    assert isinstance(a._pixels.base, np.memmap)  # type: ignore[attr-defined]
    assert np.array_equal(a.array(), b.array()) and a.fingerprint() == b.fingerprint()  # type: ignore[arg-type]


def test_exif_is_a_choice(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    upright = pixels("train", "ant", 0)
    Image.fromarray(upright).save(folder / "train" / "ant" / "0.png", exif=exif)
    assert np.array_equal(np.asarray(opened("folder", folder).load(0)), upright)
    turned = opened("folder", folder, exif=True).load(0)
    assert np.array_equal(np.asarray(turned), upright[::-1, ::-1])


def test_sizes_at_both_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pixel is an image; more pixels than Pillow's limit are an error that names the file."""
    ant = folder / "train" / "ant"
    Image.new("RGB", (1, 1), (9, 8, 7)).save(ant / "0.png")
    assert (cut(opened("folder", folder).load(0), 8, "adm") == (9, 8, 7)).all()
    Image.new("RGB", (40, 40)).save(ant / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert opened("folder", folder).load(0).size == (40, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(PagodaError, match=r"ant/0\.png\) does not decode.*exceeds limit"):
        opened("folder", folder).load(0)


def test_parquet_with_plain_bytes_and_numbers(tmp_path: Path) -> None:
    """A file that no ``datasets`` wrote: image bytes in a struct, labels as numbers, no splits."""
    pytest.importorskip("datasets")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = []
    for i in range(12):
        content = io.BytesIO()
        Image.fromarray(pixels("train", "ant", i)).save(content, "PNG")
        rows.append({"image": {"bytes": content.getvalue(), "path": f"{i}.png"}, "label": i % 3})
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    sources = [opened("hub", hub=str(tmp_path / "set.parquet"), split=s, test_share=0.25)
               for s in ("train", "test")]  # fmt: skip
    seen = {np.asarray(s.load(i)).tobytes(): s.labels[i] for s in sources for i in range(len(s))}
    assert seen == {pixels("train", "ant", i).tobytes(): i % 3 for i in range(12)}
    assert [len(s) for s in sources] == [9, 3]
