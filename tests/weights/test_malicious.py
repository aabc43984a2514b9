"""Files that would run code run none here, and are refused by the name they hide."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pagoda.errors import PagodaError
from pagoda.weight_files import read_state
from pagoda.weights.pickles import Held, read_pickle


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def written(folder: Path, tree: Any, protocol: int = 4) -> Path:
    file = folder / "weights.pkl"
    file.write_bytes(pickle.dumps(tree, protocol=protocol))
    return file


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_command_is_refused(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    file = written(tmp_path, {"ema": Calls(os.system, f"touch {mark}")}, protocol)
    with pytest.raises(PagodaError, match=r"it names posix\.system"):
        read_pickle(file)
    assert not mark.exists()
    pickle.loads(file.read_bytes())  # the file is what it claims to be
    assert mark.exists()


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (builtins.eval, ("1 + 1",), "eval"),
        (builtins.getattr, (dict, "get"), "getattr"),
        (torch.load, ("x",), r"torch\.serialization\.load"),
        (np.load, ("x", None, True), "load"),
        (torch.nn.Linear, (1, 1), r"torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_other_functions_are_refused_by_name(
    function: Any, args: Any, name: str, tmp_path: Path
) -> None:
    with pytest.raises(PagodaError, match=f"it names [a-z_.]*{name}"):
        read_pickle(written(tmp_path, Calls(function, *args)))


def opcodes(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch.storage", "_load_from_bytes.__globals__"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("torch.nn.modules.container", "os.system"),
        ("torch_utils.persistence", "_src_to_module"),
        ("dnnlib.util", "open_url"),
        ("torch", "load"),
    ],
)
def test_a_name_that_looks_allowed_is_refused(module: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.pkl"
    file.write_bytes(opcodes(text(module), text(name), b"\x93"))
    with pytest.raises(PagodaError, match=f"it names {module}.{name}".replace(".", r"\.")):
        read_pickle(file)


def test_code_in_a_tensor_of_a_pickle_is_refused(tmp_path: Path) -> None:
    """Persistence pickles hold each tensor as a file of torch, which is a pickle again."""
    mark, stream = tmp_path / "ran", io.BytesIO()
    torch.save(Calls(os.system, f"touch {mark}"), stream, _use_new_zipfile_serialization=False)
    load: Callable[..., Any] = torch.storage._load_from_bytes
    with pytest.raises(PagodaError, match=r"tensors names posix\.system, which no weights need"):
        read_pickle(written(tmp_path, Calls(load, stream.getvalue())))
    assert not mark.exists()


def test_functions_and_tensors_cannot_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "x.pkl"
    function = text("torch._utils") + text("_rebuild_tensor_v2") + b"\x93"
    file.write_bytes(opcodes(function, b"}", text("_run"), b"K\x01sb"))
    with pytest.raises(PagodaError, match="must not change"):
        read_pickle(file)
    tensor = pickle.dumps(torch.arange(4.0), protocol=4)[2:-1]
    file.write_bytes(opcodes(tensor, b"}b"))
    with pytest.raises(PagodaError, match="must not change"):
        read_pickle(file)


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((9,), (1,), 0), ((2,), (8,), 0), ((4,), (1,), 1), ((2,), (-1,), 1)],
)
def test_a_tensor_stays_in_its_storage(
    size: tuple[int], stride: tuple[int], offset: int, tmp_path: Path
) -> None:
    storage = torch.arange(4.0).storage()
    rebuild = torch._utils._rebuild_tensor_v2
    call = Calls(rebuild, storage, offset, size, stride, False, {})
    with pytest.raises(PagodaError, match="no sound pickle"):
        read_pickle(written(tmp_path, call))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"garbage", "no sound pickle"),
        (b"", "no sound pickle"),
        (b"Pa\xff\n.", "no sound pickle"),  # Python: persistent IDs in protocol 0 must be ASCII
        (b"P1\n.", "refers to data outside of it"),
        (b"\x80\x04N.", None),
        (b"(" * 100_000, "no sound pickle"),
    ],
)
def test_garbage_is_one_line_of_ours(content: bytes, said: str | None, tmp_path: Path) -> None:
    for name, read in (("x.pkl", read_pickle), ("x.pt", read_state)):
        file = tmp_path / name
        file.write_bytes(content)
        if said is None and name == "x.pkl":
            assert read(file) is None
            continue
        wanted = said if name == "x.pkl" else "cannot be read as weights"
        with pytest.raises(PagodaError, match=wanted) as raised:
            read(file)
        line = str(raised.value)
        assert "\n" not in line and "weights_only" not in line and "ASCII" not in line


def most_memory(read: Callable[[Path], Any], file: Path) -> int:
    """Bytes by which the peak of a process grows that tries to read a file, which is refused."""
    script = (
        "import resource, sys; from pathlib import Path; from pagoda.errors import PagodaError\n"
        f"from {read.__module__} import {read.__name__} as read\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "try: read(Path(sys.argv[1]))\n"
        "except PagodaError: print((peak() - before) * 1024)"
    )
    words = [sys.executable, "-c", script, str(file)]
    return int(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def test_a_file_that_unpacks_to_much_more_is_not_unpacked(tmp_path: Path) -> None:
    """Zeros that deflate to a thousandth, as torch reads them but never writes them."""
    stored, file = tmp_path / "stored.pt", tmp_path / "bomb.pt"
    torch.save({"a": torch.zeros(1 << 24)}, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(file, "w") as out:
        for entry in source.namelist():
            out.writestr(entry, source.read(entry), zipfile.ZIP_DEFLATED, 1)
    assert stored.stat().st_size > 100 * file.stat().st_size
    assert torch.load(file, weights_only=True)["a"].shape == (1 << 24,)  # 64 MiB
    with pytest.raises(PagodaError, match=r"unpacks to 67,1.* bytes"):
        read_state(file)
    assert most_memory(read_state, file) < 32 << 20


@pytest.mark.parametrize("form", ["one storage, many tensors", "steps of 0", "an archive"])
def test_a_pickle_of_which_tensors_are_larger_than_itself(form: str, tmp_path: Path) -> None:
    load: Callable[..., Any] = torch.storage._load_from_bytes
    rebuild, numbers = torch._utils._rebuild_tensor_v2, torch.zeros(1 << 18)
    if form == "steps of 0":
        tree: Any = Calls(rebuild, torch.zeros(1).storage(), 0, (1 << 30,), (0,), False, {})
    else:
        stream = io.BytesIO()
        torch.save(numbers.storage(), stream, _use_new_zipfile_serialization=form == "an archive")
        tree = [Calls(load, stream.getvalue()) for _ in range(2 if form == "an archive" else 500)]
    file = written(tmp_path, tree)
    if form == "one storage, many tensors":  # all calls share one argument: 1 MiB for 500
        assert file.stat().st_size < 2 << 20
    with pytest.raises(PagodaError, match=r"larger than itself|are archives"):
        read_pickle(file)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_tensors_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.arange(24).to(dtype).reshape(4, 6)[1:, ::2]
    tree = read_pickle(written(tmp_path, {"a": torch.nn.Parameter(tensor, False), "b": [tensor]}))
    assert isinstance(tree["a"], Held) and torch.equal(tree["a"].tensor, tensor)
    assert torch.equal(tree["b"][0].tensor, tensor)


def test_a_cut_file_and_an_absent_one(tmp_path: Path) -> None:
    file = written(tmp_path, {"a": torch.ones(100)})
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(PagodaError, match="no sound pickle"):
        read_pickle(file)
    with pytest.raises(PagodaError, match="No such file"):
        read_pickle(tmp_path / "absent.pkl")


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_a_checkpoint_is_refused(archive: bool, tmp_path: Path) -> None:
    mark, file = tmp_path / "ran", tmp_path / "x.pt"
    tree = {"a": Calls(os.system, f"touch {mark}")}
    torch.save(tree, file, _use_new_zipfile_serialization=archive)
    assert zipfile.is_zipfile(file) == archive
    with pytest.raises(PagodaError, match=r"names posix\.system, which no weights need"):
        read_state(file)
    assert not mark.exists()
