"""The command line: which commands there are, and what becomes of trouble."""

from __future__ import annotations

import codecs
import errno
import io
import locale
import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import pagoda
from pagoda import distributed
from pagoda.errors import PagodaError, first_line
from pagoda.pipeline.commands import editing, pipeline, preferring, scoring, tools, using
from pagoda.pipeline.commands.running import terminable

_HELP = (
    "A one-step image generator, grown from a low-resolution diffusion teacher (PaGoDA).\n\n"
    "'dvc repro' runs the stages in their order and skips what is up to date; a single stage "
    "reads what the ones before it left under runs/."
)

app = typer.Typer(
    name="pagoda",
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes 0.3 s to draw a help page
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_INTERRUPTED = 130
_GO_ON = "interrupted; run the same command again to go on"


def main() -> None:
    """Run the command line; trouble that a user can mend is one line and no traceback.

    Exit status: 0 success, 1 trouble, 2 wrong usage, 130 interrupted, by Ctrl-C or SIGTERM.
    """
    _use_utf8()
    try:
        with terminable():
            app()
    except KeyboardInterrupt:
        _exit(_INTERRUPTED, _GO_ON)
    except SystemExit as left:
        if left.code == _INTERRUPTED:
            _exit(_INTERRUPTED, _GO_ON)
        raise
    except Exception as error:
        line = explain(error)
        distributed.record_failure(line or f"{type(error).__name__}: {first_line(error)}")
        if line is None:
            raise
        _exit(1, f"error: {line}")


def _use_utf8() -> None:
    """Files and their names are UTF-8 whatever the locale says, and no character stops a message.

    Python decides at its start how it reads names of files, hence the new start.
    """
    own = codecs.lookup(locale.getencoding()).name
    if own != "utf-8" and not sys.flags.ignore_environment and "PYTHONUTF8" not in os.environ:
        os.environ |= {"PYTHONUTF8": "1", "PYTHONIOENCODING": own} | os.environ
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def explain(error: Exception) -> str | None:
    """What to tell the user, None for a bug. Libraries report a full disk in their own ways."""
    if isinstance(error, PagodaError):
        return str(error)
    code, text = getattr(error, "errno", None), str(error)
    if code in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in text:
        return "no space left on the disk; free some and run the same command again"
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        where = getattr(error, "filename", None) or "a file"
        return (
            f"{where}: {os.strerror(code).lower()}; see that you may read it, and write to the "
            "project's folder, then run the same command again"
        )
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if memory or "can't allocate memory" in text:
        return (
            "out of memory; close other programs, or make batches smaller: --batch where there is "
            "one, else those in params.yaml"
        )
    if isinstance(error, ModuleNotFoundError) and not _is_own(str(error.name)):
        return (
            f"{sys.executable} has no {error.name}, which pagoda needs; activate the environment, "
            "or 'uv sync --frozen' installs what is missing there"
        )
    return None


def _is_own(module: str) -> bool:
    return module.partition(".")[0] == pagoda.__name__


def _exit(status: int, message: str) -> NoReturn:
    interrupted = status == _INTERRUPTED and not distributed.is_main_process()
    if distributed.LAUNCHED not in os.environ and not interrupted:  # else the launcher says so
        sys.stderr.write(" ".join(message.split("\n")) + "\n")
    raise SystemExit(status)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"pagoda {pagoda.__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    ctx: typer.Context,
    params: Annotated[
        Path, typer.Option(metavar="FILE", help="Parameters of the experiment.")
    ] = Path("params.yaml"),
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    ctx.obj = params


def _guarded(function: Callable[..., None]) -> Callable[..., None]:
    """A command that ends with its own status at Ctrl-C; typer's differs between its versions."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            raise typer.Exit(_INTERRUPTED) from None

    return guarded


_command: Callable[..., None]
for _command in (  # in the order of the help page
    pipeline.downsample,
    pipeline.features,
    scoring.reference,
    pipeline.autoencoder,
    pipeline.encode,
    pipeline.clip,
    pipeline.scorer,
    pipeline.caption,
    pipeline.teacher,
    pipeline.invert,
    pipeline.distill,
    pipeline.grow,
    scoring.evaluate,
    scoring.compare,
    scoring.verify,
    scoring.steps,
    scoring.guidance,
    scoring.captions,
    scoring.align,
    using.sample,
    using.serve,
    using.export,
    using.push,
    pipeline.report,
    pipeline.track,
    pipeline.variant,
    pipeline.study,
    tools.ema,
    tools.plan,
    tools.import_,
    tools.new_profile,
    tools.derive,
    tools.doctor,
):
    app.command(_command.__name__.rstrip("_").replace("_", "-"))(_guarded(_command))

_edit = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
for _command in (editing.inpaint, editing.super_resolve, editing.transfer, editing.interpolate):
    _edit.command(_command.__name__.replace("_", "-"))(_guarded(_command))
app.add_typer(_edit, name="edit", help="Edit images with a generator.")

_prefer = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
for _command in (preferring.make, preferring.serve, preferring.report):
    _prefer.command(_command.__name__)(_guarded(_command))
app.add_typer(_prefer, name="prefer", help="Ask people which of two images is better.")
