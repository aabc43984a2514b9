"""Files that would run code run none here, and are refused by the name they hide."""

from __future__ import annotations

import builtins
import io
import os
import pickle
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
