"""One rule for folders, zip and tar archives: images, hidden names, links, and what is neither."""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagoda.data import trees
from pagoda.data.archives import ZipTree, open_tree
from pagoda.data.trees import FolderTree, Tree, digests, escaped
from pagoda.errors import PagodaError
from tests.disk import another_user

KINDS = ["folder", "zip", "tar"]


def packed(root: Path, kind: str) -> Path:
    """The folder itself, or an archive that keeps its links and pipes as they are."""
    path = root.with_suffix(f".{kind}")
    if kind == "tar":
        with tarfile.open(path, "w") as archive:
            archive.add(root, "./")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(root.rglob("*")):
                info = zipfile.ZipInfo(file.relative_to(root).as_posix())
                mode = file.lstat().st_mode
                info.external_attr = mode << 16
                if file.is_symlink():
                    archive.writestr(info, os.readlink(file))
                elif not stat.S_ISDIR(mode):
                    archive.writestr(info, b"" if stat.S_ISFIFO(mode) else file.read_bytes())
    return root if kind == "folder" else path


def write(root: Path, *names: str) -> Path:
    """Files that hold their own name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def contents(tree: Tree) -> dict[str, str]:
    return {name: tree.read(name).decode() for name in tree.images()}


@pytest.mark.parametrize("kind", KINDS)
def test_one_rule_of_what_is_an_image(tmp_path: Path, kind: str) -> None:
    images = ["a.png", "b/A.JPG", "b/c.jfif", "b/d.avif", "b/deep/er/e.webp"]
    others = ["b/list.csv", "b/notes.txt", "more.txt", "b/bare"]
    hidden = [".a.png", "b/.ipynb_checkpoints/c-checkpoint.png", "__MACOSX/b/x.png",
              "b/@eaDir/thumb.jpg", "b/Thumbs.db", ".git/x/y.png", ".git/z.png"]  # fmt: skip
    root = write(tmp_path / "set", *images, *others, *hidden)
    os.mkfifo(root / "b" / "pipe.png")
    tree = open_tree(packed(root, kind))
    assert contents(tree) == {name: name for name in images}
    assert tree.passed_over(len(images)) == (
        "11 files passed over: hidden 6, .txt 2, .csv 1, no ending 1, pipes and devices 1"
    )
    assert contents(tree.below("b/")) == {n[2:]: n for n in images if n.startswith("b/")}


def test_backslashes_of_a_zip_made_on_windows_separate_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for name in ("cat\\1.png", "cat\\deep\\2.png", "dog/3.png"):
            info = zipfile.ZipInfo(name)
            info.create_system = 0
            archive.writestr(info, name)
        odd = zipfile.ZipInfo("dog/a\\b.png")  # made on Unix, where it is a letter
        odd.create_system = 3
        archive.writestr(odd, "odd")
    assert contents(open_tree(tmp_path / "set.zip")) == {
        "cat/1.png": "cat\\1.png", "cat/deep/2.png": "cat\\deep\\2.png", "dog/3.png": "dog/3.png",
        "dog/a\\b.png": "odd",
    }  # fmt: skip


def test_half_of_a_letter_separates_no_folders(tmp_path: Path) -> None:
    """Shift-JIS ends letters with the byte of a backslash; zipfile reads such names as cp437."""
    name, plain = "\u80fd.png".encode("shift-jis"), b"abcdef"  # as many bytes
    assert b"\\" in name and len(name) == len(plain)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        info = zipfile.ZipInfo(plain.decode())
        info.create_system = 0
        archive.writestr(info, "pixels")
    file = tmp_path / "set.zip"
    file.write_bytes(file.read_bytes().replace(plain, name))
    (found,) = open_tree(file).images()
    assert "/" not in found and found.encode("cp437") == name


def test_a_folder_and_an_archive_are_told_apart(tmp_path: Path) -> None:
    archive = packed(write(tmp_path / "set", "cat/1.png"), "zip")
    with pytest.raises(PagodaError, match="is a file, no folder; for an archive"):
        FolderTree(archive)
    with pytest.raises(PagodaError, match="is a folder, no archive"):
        ZipTree(tmp_path / "set")


def test_an_image_that_may_not_be_read_is_not_called_damaged(tmp_path: Path) -> None:
    write(tmp_path / "set", "cat/1.png").joinpath("cat/1.png").chmod(0)
    with another_user(tmp_path):
        tree = FolderTree("set")
        with pytest.raises(PagodaError, match=r"cat/1\.png: permission denied"):
            digests(tree.read, tree.images(), tree.where)


@pytest.mark.parametrize("kind", KINDS)
def test_links_are_followed(tmp_path: Path, kind: str) -> None:
    root = write(tmp_path / "set", "store/one/1.png", "store/2.png", "view/dog/3.png", ".x/4.png")
    os.symlink("../store/one", root / "view" / "cat")  # a folder
    os.symlink("../../store/2.png", root / "view" / "dog" / "2.png")  # a file
    os.symlink("view", root / "again")  # a folder that holds links
    os.symlink("again/cat/1.png", root / "first.png")  # by way of links
    os.symlink(".x", root / "shown")
    os.link(root / "store" / "2.png", root / "view" / "hard.png")
    os.symlink("../..", root / "store" / "one" / "up")
    tree = open_tree(packed(root, kind))
    inside = {"cat/1.png": "store/one/1.png", "dog/2.png": "store/2.png", "dog/3.png":
              "view/dog/3.png", "hard.png": "store/2.png"}  # fmt: skip
    expected = {name: name for name in ("store/one/1.png", "store/2.png")}
    expected |= {f"{top}/{name}": to for top in ("view", "again") for name, to in inside.items()}
    expected |= {"first.png": "store/one/1.png", "shown/4.png": ".x/4.png"}
    assert contents(tree) == expected
    # .x is hidden; "up" leads back from each of its three places
    wanted = "4 files passed over: links to a folder above 3, hidden 1"
    assert tree.passed_over(len(expected)) == wanted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["nowhere", "lost.png", "../../../../../nowhere", "/nowhere/x"])
def test_a_broken_link_is_refused(tmp_path: Path, kind: str, target: str) -> None:
    root = write(tmp_path / "set", "cat/1.png")
    os.symlink(target, root / "cat" / "lost.png")
    with pytest.raises(PagodaError, match=r"cat/lost\.png of .*is a link to what is not there"):
        open_tree(packed(root, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_absurd_size_is_refused(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "set", "cat/1.png")
    (root / "list.txt").write_bytes(b"0" * 5000)
    monkeypatch.setattr(trees, "MOST_BYTES", 4000)
    assert len(open_tree(packed(root, kind)).images()) == 1
    (root / "cat" / "2.png").write_bytes(b"0" * 4001)
    with pytest.raises(PagodaError, match=r"cat/2\.png of .*is of 4,001 bytes.*at most 4,000"):
        open_tree(packed(root, kind))


def test_an_archive_that_lies_about_a_size_unpacks_no_more_than_it_states(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1 << 25))
    content = bytearray(path.read_bytes())
    size = content.index(b"PK\x01\x02") + 24  # of the central directory
    content[size : size + 4] = struct.pack("<I", 100)
    path.write_bytes(content)
    tree = open_tree(path)
    tracemalloc.start()
    with pytest.raises(zipfile.BadZipFile):
        tree.read("a.png")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@contextmanager
def nobody() -> Iterator[None]:
    """Permissions mean nothing to root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_that_cannot_be_entered_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:  # the folders above may be entered by anybody
        root = write(Path(folder), "cat/1.png", "dog/1.png")
        root.chmod(0o755)
        (root / "cat").chmod(0o000)
        with nobody(), pytest.raises(PagodaError, match=r"cannot read .*/cat: Permission denied"):
            FolderTree(root)
        (root / "cat").chmod(0o755)


def test_escaped_names_stay_apart_and_are_one_line_of_utf8() -> None:
    raw = [b"a", b"caf\xe9", b"caf\\xe9", "café".encode(), b"a\nb", b"a\\nb", b"a\\\nb", b"\\",
           b"\\\\", b"\xed\xb3\xa9", b"a\rb", b"a\\u000db", "a\u2028b".encode(),
           b"a\x85b"]  # fmt: skip
    lines = [escaped(os.fsdecode(name)) for name in raw]
    assert len(set(lines)) == len(raw)
    text = "".join(line + "\n" for line in lines)
    assert text.encode("utf-8").decode("utf-8").splitlines() == lines
    assert escaped("train/straße 1.png") == "train/straße 1.png"
    assert escaped(os.fsdecode(b"caf\xe9\\\n")) == r"caf\xe9\\\n"


def test_damaged_archives_are_one_line(tmp_path: Path) -> None:
    """A name that claims to be UTF-8 and is not; links that lead to each other without end."""
    path = tmp_path / "names.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("café.png", b"")
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xe9\xe9"))
    with pytest.raises(PagodaError, match=r"names\.zip ends early or is no zip archive"):
        open_tree(path)
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        for i in range(3000):
            info = tarfile.TarInfo(f"{i}.png")
            info.type, info.linkname = tarfile.SYMTYPE, f"{i + 1}.png"
            archive.addfile(info)
    with pytest.raises(PagodaError) as error:
        open_tree(path)
    assert "\n" not in str(error.value)
