"""Image files in folders and archives: the same set in every form; what is wrong is named."""

from __future__ import annotations

import gzip
import pickle
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pagoda.data.resize import cut
from pagoda.errors import PagodaError
from tests.data.animals import ANIMALS, opened, pixels, tarred, zipped


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


def test_val_stands_in_for_a_test_folder_without_classes(folder: Path) -> None:
    (folder / "test").rename(folder / "val")
    (folder / "test").mkdir()
    Image.fromarray(pixels("test", "ant", 0)).save(folder / "test" / "unlabelled.png")
    assert opened("folder", folder, split="test").names[0] == "val/ant/more/0.png"
    assert opened("zip", zipped(folder), split="test").names[0] == "val/ant/more/0.png"


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
    with pytest.raises(PagodaError, match="class dog is in test but not in train; move some"):
        opened("folder", folder, split="test")
