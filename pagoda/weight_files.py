"""Files of weights: found, fetched, and read as numbers and nothing else.

No loader of others ever opens such a file: what torch saves is a pickle, which can run code. It is
read here, and networks get the tensors.
"""

from __future__ import annotations

import contextlib
import re
import urllib.error
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pagoda.artifacts import sha256
from pagoda.errors import PagodaError
from pagoda.tensors import read_tensors

_M = TypeVar("_M", bound=nn.Module)
_SHOWN = 3


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        what: for messages, e.g. ``Inception weights``.
        name: file name as published.
        url: where it is published.
        places: folders to look in, besides the checkpoints of ``torch.hub``.
        program: its SHA-256 if the file is a program (TorchScript), which runs when it is read: no
            other file is taken for it. Empty for a file of numbers.
    """

    what: str
    name: str
    url: str
    places: tuple[Path, ...] = ()
    program: str = ""

    @property
    def published(self) -> str:
        """Start of the published SHA-256, which torch.hub's names end with; empty if unknown."""
        found = re.search(r"-([0-9a-f]{8,})\.\w+$", self.name)
        return self.program or (found[1] if found else "")


LPIPS = {
    network: WeightFile("LPIPS weights", name, f"https://download.pytorch.org/models/{name}")
    for network, name in (
        ("alex", "alexnet-owt-7be5be79.pth"),
        ("vgg", "vgg16-397923af.pth"),
        ("squeeze", "squeezenet1_1-b8a52dc0.pth"),
    )
}
"""Torchvision's weights of the networks under LPIPS."""


def find_weights(file: WeightFile, given: Path | None, download: bool) -> Path:
    """Path of a weight file, whose content was compared with what its name promises.

    Args:
        file: which.
        given: the file itself, or a folder that holds it under its published name. Weights under
            any other name are taken as they are.
        download: fetch it into the checkpoints of ``torch.hub`` if it is in no usual place.

    Raises:
        PagodaError: one line: what is missing or not the published file, where it was looked for,
            how to get it.
    """
    if given is not None:
        path = given / file.name if given.is_dir() else given
        if not path.is_file():
            raise PagodaError(
                f"there is no {path}; the weights given must be {file.name} from {file.url}"
            )
        return _compared(path, file)
    folders = [*file.places, hub_checkpoints()]
    for folder in folders:
        if (folder / file.name).is_file():
            return _compared(folder / file.name, file)
    if download:
        return _compared(_download(file, folders[-1] / file.name), file)
    raise PagodaError(
        f"no {file.what}: {file.name} is not in {' or '.join(map(str, folders))}; get it from "
        f"{file.url} and name it with --weights FILE, or let --download fetch it (a pipeline: "
        "reference.weights, reference.download)"
    )


def hub_checkpoints() -> Path:
    """Where ``torch.hub`` keeps weights."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote, as tensors in dicts and lists, on the CPU.

    Raises:
        PagodaError: one line if the file holds code, or is damaged.
    """
    try:
        if zipfile.is_zipfile(path):
            # torch packs without compression: what unpacks to more than the file fills the memory
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > path.stat().st_size:
                raise PagodaError(
                    f"{path} unpacks to {unpacked:,} bytes, which no file of torch does"
                )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch tells its developers how a pickle is written
            return torch.load(path, map_location="cpu", weights_only=True)
    except PagodaError:
        raise
    except OSError as error:
        raise PagodaError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # whatever a crafted file makes torch raise
        raise PagodaError(f"{path} {refusal(error)}") from error


def refusal(error: Exception) -> str:
    """Why torch read no weights, without its advice to run what the file holds."""
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return (
            f"names {named[1]}, which no weights need; such a file can run code, so it was not "
            "read further"
        )
    return "cannot be read as weights: it is damaged or something else; fetch it again"


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors by name of a ``.safetensors`` file, or of one that ``torch.save`` wrote.

    Those under ``model`` where there is such an entry.

    Raises:
        PagodaError: one line if the file holds code, is damaged, or holds anything else.
    """
    tree = read_tensors(path) if path.suffix == ".safetensors" else read_torch(path)
    if isinstance(tree, dict) and isinstance(tree.get("model"), dict):
        tree = tree["model"]
    if not isinstance(tree, dict) or not tree:
        raise PagodaError(f"{path} holds a {type(tree).__name__}, expected tensors by name")
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or not _is_plain(value):
            raise PagodaError(
                f"{path}: {name!r} is a {type(value).__name__}, expected tensors by name"
            )
    if sum(value.nbytes for value in tree.values()) > path.stat().st_size:
        raise PagodaError(f"{path} holds tensors larger than itself, which would fill the memory")
    return tree


def misfit(
    module: nn.Module, weights: Mapping[str, Tensor], names: Mapping[str, str] | None = None
) -> str | None:
    """Why weights are not those of a module, e.g. ``lacks the weights of head.bias``; None if so.

    They are if names and shapes agree and every number is finite, and real where it must be.

    Args:
        module: which can be on the device ``meta``, without weights of its own.
        weights: by its names.
        names: what the user's file calls them, where that differs.
    """
    wanted, names = module.state_dict(), names or {}
    missing = [name for name in wanted if name not in weights]
    if missing:
        return f"lacks the weights of {some(missing)}"
    if surplus := [name for name in weights if name not in wanted]:
        return f"has {some(names.get(n, n) for n in surplus)}, which its network does not have"
    wrong = [_difference(weights[name], like) for name, like in wanted.items()]
    found = [f"{names.get(n, n)} {why}" for n, why in zip(wanted, wrong, strict=True) if why]
    return f"holds another network or is damaged: {some(found)}" if found else None


def load_lpips(trunk: nn.Module, path: Path, network: str) -> None:
    """Load the network under LPIPS, as its package makes it, from torchvision's file.

    Raises:
        PagodaError: one line if the file holds something else.
    """
    stored = read_state(path)
    # The package cuts torchvision's `features` into slices that keep the layers' numbers.
    parts = {key: "features." + key.split(".", 1)[1] for key in trunk.state_dict()}
    weights = {key: stored[part] for key, part in parts.items() if part in stored}
    if why := misfit(trunk, weights, parts):
        raise PagodaError(f"{path} does not hold the weights of {LPIPS[network].name}: it {why}")
    trunk.load_state_dict(weights)


def fitted(
    build: Callable[[dict[str, Any]], _M], weights: Mapping[str, Tensor], card: dict[str, Any]
) -> _M:
    """``build(card)`` with weights, in eval mode; nothing large is made before they fit.

    Raises:
        PagodaError: one line if they do not.
    """
    with torch.device("meta"), NoRandomValues():
        empty = build(card)
    if why := misfit(empty, weights):
        raise PagodaError(why)
    module = build(card)
    module.load_state_dict(weights)
    return module.eval()


@contextlib.contextmanager
def of_the_card(file: Path, what: str) -> Iterator[None]:
    """Whatever a foreign card makes a network beside a model raise, as one line.

    Args:
        file: of its weights.
        what: the network, for the message.
    """
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__} {error}".splitlines()[0]
        raise PagodaError(f"{file} fits no {what} of the card: {why}") from error


class NoRandomValues(TorchFunctionMode):
    """Layers are made without the random values that those of a file replace at once.

    Drawing them takes seconds for a large network, and on the meta device, where shapes are
    compared first, it imports torch's compiler, which takes more than a second.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_"):
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def positive(card: Mapping[str, Any], key: str) -> float:
    """A number above zero from a card.

    Raises:
        PagodaError: if it is none.
    """
    value = card[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e30:
        raise PagodaError(f"{key} of its card is {value!r}, expected a number above zero")
    return float(value)


def whole(card: Mapping[str, Any], *keys: str, least: int = 1) -> None:
    """Refuse entries of a card that are not whole numbers, or too small.

    Raises:
        PagodaError: for the first of them.
    """
    for key in keys:
        if type(card[key]) is not int or not least <= card[key] < 1 << 31:
            raise PagodaError(f"{key} of its card is {card[key]!r}, expected {least} or more")


def _difference(tensor: Tensor, like: Tensor) -> str | None:
    if tensor.shape != like.shape:
        return f"is {tuple(tensor.shape)}, not {tuple(like.shape)}"
    if tensor.is_floating_point() != like.is_floating_point():
        kinds = (str(t.dtype).removeprefix("torch.") for t in (tensor, like))
        return "holds {}, not {}".format(*kinds)
    if like.is_floating_point() and not bool(tensor.to(like.dtype).isfinite().all()):
        return "holds NaN or infinity"
    return None


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    )


def _compared(path: Path, file: WeightFile) -> Path:
    if file.published and (file.program or path.name == file.name):
        found = sha256(path)
        if not found.startswith(file.published):
            raise PagodaError(
                f"{path} is not the published {file.name}: its SHA-256 starts with {found[:8]}, "
                f"not {file.published[:8]}; fetch it again from {file.url}"
            )
    return path


def _download(file: WeightFile, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(file.url, str(path), file.published or None, progress=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        raise PagodaError(
            f"cannot download {file.what} from {file.url} ({reason}); get {file.name} on a machine "
            "with internet and name it with --weights FILE (a pipeline: reference.weights)"
        ) from error
    return path


def some(names: Iterable[str]) -> str:
    """The first three of some names, and how many more there are."""
    names = list(names)
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
