"""From a command to its stage: read the parameters, import the stage, run it."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pagoda import distributed
from pagoda.errors import PagodaError
from pagoda.pipeline import launcher

if TYPE_CHECKING:
    from pagoda.config import Config

_BRIEF = {"sample"}  # stages that can take less time than the imports before them


def option(metavar: str | None, about: str, *flags: str, **rules: Any) -> Any:
    """An option of a command: what its value is called (None: a flag), and what it does."""
    return typer.Option(*flags, metavar=metavar, help=about, **rules)


def place(metavar: str, about: str) -> Any:
    """An option that says where a command's output goes: nowhere in ``runs/``."""
    return typer.Option(metavar=metavar, help=about, callback=outside_runs)


def outside_runs(out: Path | None) -> Path | None:
    """A place that a user names: not among what the pipeline keeps.

    Raises:
        PagodaError: DVC would remove what is put there, and take what is replaced for its own.
    """
    if out is not None:
        from pagoda.config.root import project_root

        root, real = project_root(), os.path.realpath  # it bears links that lead to themselves
        if (root / ".dvc").is_dir() and Path(real(out)).is_relative_to(real(root / "runs")):
            raise PagodaError(f"{out} lies in runs/, which is the pipeline's; choose another place")
    return out


Teacher = Annotated[Path | None, option("FOLDER", "The generator's teacher; otherwise the run's.")]


def parameters(ctx: typer.Context) -> Config:
    """The experiment that ``--params`` names."""
    from pagoda.config import load

    return load(ctx.obj)


def run(stage: str, *args: Any, function: str = "run") -> Any:
    """Import the stage and run it. Parameters are read before: a slip in them shows at once."""
    with interruptible_after(), uncollected():
        module = importlib.import_module(f"pagoda.pipeline.stages.{stage}")
    if stage in _BRIEF and "triton" not in sys.modules:  # triton's exit complains of what is kept
        gc.freeze()  # what was imported is not searched for garbage, now and at the exit
    return getattr(module, function)(*args)


def run_shared(stage: str, *args: Any, function: str = "run", system: Path | None = None) -> Any:
    """Run a stage that several processes can share: start them, join them, or run it alone.

    ``system`` is the file for what the stage takes of the first process's machine.

    Returns:
        What the stage returns here; None in the process that only started the others.
    """
    if others_ran():
        return None
    with distributed.group():
        if system is None or distributed.rank():
            return run(stage, *args, function=function)
        from pagoda.pipeline.system import sampled

        with sampled(system):
            return run(stage, *args, function=function)


def others_ran() -> bool:
    """Start the processes of a stage, if there are to be several, and see them through."""
    status = launcher.run(sys.argv[1:])
    if status:
        raise typer.Exit(status)
    return status is not None


def run_first(stage: str, *args: Any) -> None:
    """Run a stage in the first process; others that a launcher started have nothing to do."""
    os.environ.update(launcher.adopt_slurm(os.environ))
    if distributed.rank() == 0:
        run(stage, *args)


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage: what is imported stays, and torch's import is an eighth faster."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


_pressed: list[int] = []


def _interrupt(number: int, _: object) -> None:
    _pressed.append(number)
    raise KeyboardInterrupt


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, which schedulers send, ends the block as Ctrl-C does: with a word, in order.

    Raises:
        KeyboardInterrupt: one of them came, also where a library made another error of it, as numpy
            does while it writes a file.
    """
    _pressed.clear()
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt)}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except Exception as error:
        if _pressed:
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible_after() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the block is over; while torch is imported they get lost.

    A shell's background job, for which Ctrl-C is not, stays deaf to it.
    """
    ours = [s for s in (signal.SIGINT, signal.SIGTERM)
            if signal.getsignal(s) in (signal.default_int_handler, _interrupt)]  # fmt: skip
    pressed: list[int] = []
    before = {s: signal.signal(s, lambda caught, _: pressed.append(caught)) for s in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if pressed:
        raise KeyboardInterrupt


def known(config: Config, resolution: int) -> int:
    """The resolution, if it is one of the experiment's.

    Raises:
        PagodaError: it is not.
    """
    if resolution not in config.resolutions:
        raise PagodaError(
            f"--resolution = {resolution}; it must be one of {config.resolutions}, which follow "
            "from base_res and target_res in params.yaml"
        )
    return resolution
