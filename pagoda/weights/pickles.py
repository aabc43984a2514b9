"""NVIDIA's persistence pickles, read without running anything that they hold.

Such a pickle carries the source code of its networks and runs it when it is loaded. Here no name
of a file is ever imported: objects become :class:`Record`, and the only functions are those below,
which build tensors. Any other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NoReturn

import torch
from torch import Tensor

from pagoda.errors import PagodaError
from pagoda.weight_files import refusal

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
    if zipfile.is_zipfile(io.BytesIO(data)):
        raise PagodaError("its tensors are archives, which can unpack to any size")
    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a crafted file makes torch raise
        raise PagodaError(f"one of its tensors {refusal(error)}") from error
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


_FUNCTIONS: dict[str, Callable[..., Held]] = {
    "torch.storage._load_from_bytes": _load_storage,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
}


def _bytes(name: str, args: tuple[Any, ...]) -> int:
    """What a call allots: the size of a storage, or of the tensor that is cut from one."""
    if name.endswith("_load_from_bytes"):
        return len(args[0])
    if name.endswith("_rebuild_tensor_v2"):
        return math.prod(_shape(args[2])) * int(args[0].tensor.element_size())
    return 0


class _Reader(pickle.Unpickler):
    """Looks names up in the tables above alone.

    Args:
        stream: of the pickle.
        size: of the file in bytes. What its tensors take together is no more in honest ones, where
            each is stored once and read once.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__(stream)
        self._left = dict.fromkeys(_FUNCTIONS, size)

    def _bounded(self, name: str) -> Callable[..., Held]:
        def run(*args: Any) -> Held:
            self._left[name] -= _bytes(name, args)
            if self._left[name] < 0:
                raise PagodaError("its tensors are larger than itself and would fill the memory")
            return _FUNCTIONS[name](*args)

        return run

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _RECORDS:
            return type("Record", (Record,), {"__slots__": (), "name": full})
        if full in _FUNCTIONS:
            return _Function(self._bounded(full))
        found = _BUILTINS.get(full)
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
            return _Reader(stream, path.stat().st_size).load()
    except PagodaError as error:
        raise PagodaError(f"{path}: {error}") from error
    except OSError as error:
        raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a crafted or cut file can raise anything
        raise PagodaError(
            f"{path} is no sound pickle ({type(error).__name__}): it is damaged or something else"
        ) from error
