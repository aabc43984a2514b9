"""The contract of a method, and how one is found by its name.

A method is one file: its configuration, the networks it needs besides the one that a stage hands
it, and the losses of one step. The loop (:mod:`pagoda.training.loop`) does all the rest: scaling,
sums over processes, clipping, updates, averages, checkpoints, curves. Nothing heavy is imported
here, nor at the top of a method's file: its configuration is read by every command.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
import pkgutil
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pagoda.errors import PagodaError
from pagoda.extras import part
from pagoda.fields import opt
from pagoda.training.settings import DiffusionConfig, MethodConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from pagoda.artifacts import Artifact
    from pagoda.networks.clip import Clip
    from pagoda.networks.denoiser import Denoiser
    from pagoda.networks.generator import Generator
    from pagoda.training.batches import ImageBatches, PairBatches
    from pagoda.training.draw import GlobalDraw
    from pagoda.training.player import Player

METHODS = "pagoda.methods"


@dataclass(frozen=True)
class Loss:
    """One player's loss, or a part of it.

    Attributes:
        player: its name in ``Method.players``.
        value: this process's part of the loss of the global batch, from :meth:`GlobalDraw.mean`.
        last: it ends the player's update; losses before it only add their gradients.
        stats: this process's parts of statistics for the curves. Those of one name add up.
        noisy: where the network sees noisy images: their noise levels (n,) with what it made of
            each, (n,) or (n, ...), so that trouble is told with its levels.
    """

    player: str
    value: Tensor
    last: bool = True
    stats: Mapping[str, Tensor | float] = field(default_factory=dict)
    noisy: Sequence[tuple[Tensor, Tensor]] = ()


@dataclass(frozen=True)
class Given:
    """What a stage hands to the method that trains its network.

    Attributes:
        network: what the stage writes in the end; frozen parts do not require gradients.
        images: real images at the network's resolution, of classes; a cascade's also at the lower.
        seed: of whatever the method makes itself.
        diffusion: the noise schedule.
        pairs: inverted latents with their images; stages 2 and 3.
        teacher: loads the denoiser that is distilled; stages 2 and 3.
        teacher_pairs: makes prior latents and the teacher's samples of them, as many as there are
            pairs, of the same classes and weights of guidance; stage 2.
        below: the generator that is grown, with what its method left beside it; stage 3.
        clip: loads the CLIP whose text encoder the generator is told captions by; stages 2 and 3.
    """

    network: nn.Module
    images: ImageBatches
    device: torch.device
    seed: int
    diffusion: DiffusionConfig
    pairs: PairBatches | None = None
    teacher: Callable[[], Denoiser] | None = None
    teacher_pairs: Callable[[], PairBatches] | None = None
    below: Artifact | None = None
    clip: Callable[[], Clip] | None = None


class Method(ABC):
    """What trains a network: ``Method(config, given)``.

    Attributes:
        Config: the dataclass of its section: a :class:`MethodConfig` with its own keys, made by
            :func:`pagoda.fields.opt` with defaults, and ``checks`` of what they demand of each
            other.
        players: the networks that train. The average of the first one is what the stage writes.
        modules: further state that a checkpoint must hold.
        period: steps after which the work of a step repeats, for counts.
        turns: fractions of training at which it changes, for counts.
        weighted: it tells the generator the weight of the guidance (``invert.guidance_max``).
        of_generators: it trains a one-step generator, so that ``distill`` and ``grow`` may name it.
    """

    Config: ClassVar[type[MethodConfig]]
    players: dict[str, Player]
    modules: Mapping[str, nn.Module] = {}
    period: int = 1
    turns: tuple[float, ...] = ()
    weighted: ClassVar[bool] = False
    of_generators: ClassVar[bool] = True

    def __init__(self, config: Any, given: Given) -> None:
        raise NotImplementedError

    def card(self) -> dict[str, Any]:
        """Facts about the method for the card beside the weights."""
        return {}

    def beside(self) -> dict[str, dict[str, Tensor]]:
        """Other weights to keep beside the trained network's: file ``<key>.safetensors``, tensors
        by name.
        """
        return {}

    @abstractmethod
    def step(self, draw: GlobalDraw, i: int, progress: float) -> Iterator[Loss]:
        """Step number ``i``: yields one loss at a time, each after the updates of those before it.

        It begins with its data, drawn from ``draw``, as is every random number that depends on the
        batch; it has no side effects before that, and yields nothing from inside a ``with``.

        Args:
            progress: fraction of training done, in [0, 1).
        """


@dataclass(frozen=True)
class ByMethod(MethodConfig):
    """A section some of whose keys are those of the method that it names."""

    method: str = opt(
        "what trains it: a file of pagoda/methods, or path/to/file.py:Class", default="one_step"
    )

    @classmethod
    def select(cls, tree: Mapping[str, Any]) -> type:
        """The class that reads the section: the stage's keys and the method's.

        Raises:
            PagodaError: there is no such method, or it trains no generator.
        """
        name = tree.get("method", cls.default())
        method = find_method(name)
        if not method.of_generators:
            known = ", ".join(generator_methods())
            raise PagodaError(f"method = {name!r} trains no generator; {known} do")
        return _joined((method.Config, cls))

    @classmethod
    def default(cls) -> Any:
        """The method of a section that names none."""
        return cls.__dataclass_fields__["method"].default


@cache
def _joined(bases: tuple[type, type]) -> type:
    """One class a pair: equal sections are equal."""
    return dataclasses.make_dataclass(bases[1].__name__, [], bases=bases, frozen=True)


def registered() -> list[str]:
    """Names of the package's own methods."""
    return sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(METHODS).__path__))


def find_method(name: Any) -> type[Method]:
    """The class of a method: ``one_step`` is ``OneStep`` of ``pagoda/methods/one_step.py``.

    ``path/to/file.py:Class`` is a class of a file of one's own, which is run.

    Raises:
        PagodaError: there is no such method.
    """
    file, colon, wanted = name.rpartition(":") if isinstance(name, str) else ("", "", "")
    if colon:
        module, where = _load(file), file
    elif name in registered():
        module, where = part(f"{METHODS}.{name}"), f"pagoda/methods/{name}.py"
        wanted = str(name).title().replace("_", "")
    else:
        raise PagodaError(
            f"method = {name!r}; it must be one of {', '.join(generator_methods())}, or a class of "
            "a file of your own: path/to/file.py:Class"
        )
    found = getattr(module, wanted, None)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise PagodaError(f"{where} has no method {wanted}, a class derived from Method")
    return found


def file_of(name: Any) -> str:
    """The file of a method, which its stage depends on."""
    file, colon, _ = str(name).rpartition(":")
    return file if colon else f"{METHODS.replace('.', '/')}/{name}.py"


def keys_of_others(section: type[ByMethod], tree: Mapping[str, Any]) -> list[str]:
    """Keys of a section that belong to other methods of the package than the one it names."""
    known = {f.name for f in dataclasses.fields(section.select(tree))}
    others = {
        f.name for method in generator_methods().values() for f in dataclasses.fields(method.Config)
    }
    return [key for key in tree if key in others - known]


def generator_methods() -> dict[str, type[Method]]:
    """The package's methods of generators; a file that is broken is its own trouble alone."""
    found = {}
    for name in registered():
        with suppress(PagodaError):
            found[name] = find_method(name)
    return {name: method for name, method in found.items() if method.of_generators}


def module_of(name: str) -> str | Path:
    """Where a method's code is: a module of the package, or a file of one's own."""
    file, colon, _ = name.rpartition(":")
    return Path(file) if colon else f"{METHODS}.{name}"


@cache
def _load(file: str) -> Any:
    if not re.search(r"\w\.py$", file) or not Path(file).is_file():
        raise PagodaError(f"method = '{file}:...'; it must be of a file that is there")
    name = f"pagoda_method_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def needs_one_step_denoiser(generator: Generator, method: str, lacks: str) -> None:
    """The generator is the teacher's denoiser at sigma_max, at the base resolution.

    Args:
        method: its name.
        lacks: what the method has not above the base, for the message.

    Raises:
        PagodaError: it was grown, or its output is scaled otherwise.
    """
    if generator.levels:
        side = f"{generator.resolution}x{generator.resolution}"
        raise PagodaError(
            f"{method} has no {lacks} at {side}, where a grown generator makes images of smaller "
            "latents; use it in distill, not in grow"
        )
    high, s = generator.sigma_max, generator.sigma_data
    c_out = high * s / math.hypot(high, s)
    counted = next(generator.parameters()).is_meta  # shapes alone, whatever their scale
    if not counted and not math.isclose(generator.output_scale, c_out, rel_tol=1e-6):
        raise PagodaError(
            f"{method} needs a generator that starts as the teacher's denoiser; set "
            "distill.output: denoiser"
        )
