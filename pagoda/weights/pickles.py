"""NVIDIA's persistence pickles, read without running anything that they hold.

Such a pickle carries the source code of its networks and runs it when it is loaded. Here no name
of a file is ever imported: objects become :class:`Record`, and the only functions are those below,
which build tensors. Any other name is refused.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from pagoda.errors import PagodaError

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"

_RECORDS = {
    PERSISTENT,
    *(f"torch.nn.modules.container.{k}" for k in ("ModuleDict", "ModuleList", "Sequential")),
    *(f"torch.{k}" for k in ("float16", "bfloat16", "float32", "float64", "int64", "Size")),
    *(f"numpy.{k}" for k in ("dtype", "ndarray")),
    *(f"{m}.multiarray.{k}" for m in ("numpy.core", "numpy._core")
      for k in ("scalar", "_reconstruct")),
    "_codecs.encode",
}  # fmt: skip
"""Names that become inert records: what they stand for is never called."""

_BUILTINS: dict[str, type] = {
    "collections.OrderedDict": dict,
    "dnnlib.util.EasyDict": dict,
    "builtins.set": set,
    "__builtin__.set": set,
}


class Record:
    """An object of a pickle: the name of its class or function, arguments and state, all inert."""

    __slots__ = ("args", "state")
    name: ClassVar[str] = ""
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Record:
        """Keep the arguments; nothing is called with them."""
        record = super().__new__(cls)
        record.args, record.state = args, None
        return record

    def __init__(self, *args: Any) -> None:
        """Take what ``__new__`` has kept."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Sealed:
    """What an unpickler may pass on but not change."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> NoReturn:
        raise PagodaError("it changes an object that it must not change")


class Held(_Sealed):
    """A tensor, out of a pickle's reach: torch's own ``__setstate__`` would re-point its memory."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Function(_Sealed):
    __slots__ = ("_run",)

    def __init__(self, run: Callable[..., Held]) -> None:
        self._run = run

    def __call__(self, *args: Any) -> Held:
        return self._run(*args)


def _load_storage(data: bytes) -> Held:
    """A storage, which is itself a file of torch, so nothing but numbers may be in it."""
    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a crafted file makes torch raise
        raise PagodaError(f"its tensors hold what torch refuses: {_first_line(error)}") from error
    if not isinstance(storage, torch.storage.TypedStorage):
        raise PagodaError(f"it holds a {type(storage).__name__} where numbers belong")
    with warnings.catch_warnings():  # torch deprecates typed storages, which these files hold
        warnings.simplefilter("ignore", UserWarning)
        return Held(torch.empty(0, dtype=storage.dtype).set_(storage.untyped()))


def _rebuild_tensor(storage: Held, offset: int, size: Any, stride: Any, *_: Any) -> Held:
    """``as_strided`` checks that all elements lie in the storage."""
    return Held(storage.tensor.as_strided(_shape(size), _shape(stride), offset).clone())


def _shape(numbers: Any) -> tuple[int, ...]:
    return tuple(numbers.args[0] if isinstance(numbers, Record) else numbers)


def _rebuild_parameter(data: Held, *_: Any) -> Held:
    return Held(data.tensor)


_FUNCTIONS = {
    "torch.storage._load_from_bytes": _Function(_load_storage),
    "torch._utils._rebuild_tensor_v2": _Function(_rebuild_tensor),
    "torch._utils._rebuild_parameter": _Function(_rebuild_parameter),
}


class _Reader(pickle.Unpickler):
    """Looks names up in the tables above and nowhere else."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _RECORDS:
            return type("Record", (Record,), {"__slots__": (), "name": full})
        found = _FUNCTIONS.get(full) or _BUILTINS.get(full)
        if found is None:
            raise PagodaError(
                f"it names {full}, which no network needs; a pickle can run code, so it was not "
                "read further"
            )
        return found

    def persistent_load(self, pid: Any) -> NoReturn:
        raise PagodaError("it refers to data outside of it; EDM's pickles do not")


def read_pickle(path: Path) -> Any:
    """The content of a pickle as dicts, lists, numbers, strings, :class:`Record`, :class:`Held`.

    Raises:
        PagodaError: one line that names what was refused; nothing of the file has run.
    """
    try:
        with path.open("rb") as stream:
            return _Reader(stream).load()
    except PagodaError as error:
        raise PagodaError(f"{path}: {error}") from error
    except OSError as error:
        raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a crafted or cut file can raise anything
        raise PagodaError(f"{path} is no sound pickle: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = [line for line in lines if "GLOBAL" in line]
    return (named or lines or [type(error).__name__])[0]
