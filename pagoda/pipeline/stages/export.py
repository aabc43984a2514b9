"""What ``pagoda export`` does: a model as a folder that stands alone, to be handed on.

It is an artifact like the run's, with the names of the classes and the provenance in its card, and
graphs if they are asked for; beside them a model card and a grid of samples, which may be edited.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from pagoda import artifacts, outputs
from pagoda.artifacts import MANIFEST, peek, sha256
from pagoda.errors import PagodaError
from pagoda.kinds import CARD_FILE, MODEL_FILE
from pagoda.models import Generator, Teacher, load
from pagoda.pipeline.stages.progress import log_line
from pagoda.provenance import (
    EXPORTED,
    INDEX,
    MODELS,
    ONNX,
    PROGRAM,
    README,
    SAMPLES,
    known_of,
    provenance,
)
from pagoda.results import grids
from pagoda.results.model_card import model_card
from pagoda.training.post_hoc import weights_beside
from pagoda.weights import graphs

PARITY = 1e-4  # by which a graph may differ from the network, of images in [-1, 1]
_SHOWN = 8  # classes and seeds of the grid


@dataclass(frozen=True)
class Request:
    """The options of ``pagoda export``."""

    source: str
    out: Path
    licence: str | None = None
    program: bool = False
    onnx: bool = False
    diffusers: bool = False


def run(request: Request) -> None:
    """Write the folder, the whole of it or nothing.

    Raises:
        PagodaError: one line: no model, something else in the way, a package that is missing, a
            graph that differs from the network.
    """
    outputs.check_folder(request.out, stranger)
    if request.onnx:
        graphs.check_onnx()
    if request.diffusers:
        import pagoda.diffusers  # noqa: F401  # which says what is missing
    model = load(request.source, "cpu")
    if request.diffusers and not isinstance(model, Generator):
        raise PagodaError(f"{request.source} is a teacher; --diffusers is of a generator")
    if request.out.resolve() == model.artifact.path.resolve():
        raise PagodaError(f"{request.out} is the model itself; export it to another place")
    kind = model.artifact.manifest["kind"]
    card = model.card | {"classes": model.classes} | known_of(model.artifact)
    card["provenance"] = provenance(model.artifact)
    asked = {PROGRAM: request.program, ONNX: request.onnx, INDEX: request.diffusers}
    wanted = [name for name, yes in asked.items() if yes]
    with outputs.new_folder(request.out, stranger) as folder:
        shown = _write_grid(folder / SAMPLES, model)
        beside = weights_beside(model.artifact)
        files = [MODEL_FILE, *beside, CARD_FILE, *wanted, MANIFEST, SAMPLES, README]
        text = model_card(
            kind, card, licence=request.licence, place=request.out.name, shown=shown,
            parameters=sum(p.numel() for p in model.network.parameters()), files=files,
        )  # fmt: skip
        outputs.write_text(folder / README, text)
        config = model.artifact.config | {
            EXPORTED: {f: sha256(folder / f) for f in (README, SAMPLES)}
        }
        inside = folder / "artifact"  # a manifest lists all of its folder, which may be edited
        made_from = {"exported_from": model.artifact}
        with artifacts.create(inside, kind, config=config, inputs=made_from) as out:
            artifacts.save_weights(out, model.artifact.weights(), card)
            for name in beside:
                shutil.copyfile(model.artifact.path / name, out / name)
            _write_graphs(out, model.network, [name for name in wanted if name != INDEX])
            if request.diffusers:
                from pagoda.diffusers import write_index

                write_index(out)
        for file in inside.iterdir():
            file.rename(folder / file.name)
        inside.rmdir()
        if isinstance(model, Generator) and request.diffusers:
            _check_pipeline(folder, model)
    log_line(f"{request.out}: {', '.join(files)}")


def _check_pipeline(folder: Path, model: Generator) -> None:
    from pagoda.diffusers import same_images

    if not same_images(folder, model):
        raise PagodaError(
            "diffusers makes other images of the folder, so nothing was exported; its version is "
            "at fault: try another"
        )
    log_line(f"{INDEX}: diffusers makes the same images of it, bit for bit")


def stranger(folder: Path) -> str | None:
    """Why a folder may not be replaced: it was not exported, or was edited since."""
    try:
        manifest = peek(folder, *MODELS).manifest
    except PagodaError:
        return "is no exported model"
    if (sums := manifest["config"].get(EXPORTED)) is None:
        return "is a model of a run, not an exported one"
    for name, checksum in sums.items():
        if (folder / name).is_file() and sha256(folder / name) != checksum:
            return f"holds a {name} that was edited"
    return outputs.only(MANIFEST, *map(escape, [*manifest["files"], *sums]))(folder)


def _write_grid(file: Path, model: Generator | Teacher) -> str:
    """The first seeds of the first classes; what is said of them."""
    classes = model.numbers()[:_SHOWN]
    images = model.sample(classes, range(_SHOWN))
    rows = images.reshape(len(classes), _SHOWN, *images.shape[1:])
    shown = f"Seeds 0 to {_SHOWN - 1} of the first {len(classes)} classes"
    grids.class_grid(rows, model.classes[:_SHOWN], shown).save(file, optimize=True)
    return shown


def _write_graphs(folder: Path, network: Any, names: list[str]) -> None:
    """Graphs of the network, each run and compared with it."""
    if not names:
        return
    program = graphs.traced(network)
    for name in names:
        if name == PROGRAM:
            graphs.write_program(program, folder / name)
            off = graphs.program_difference(network, folder / name)
        else:
            graphs.write_onnx(program, graphs.example(network, 2), folder / name)
            off = graphs.onnx_difference(network, folder / name)
        if not off <= PARITY:
            raise PagodaError(
                f"{name} differs from the network by {off:.2g}, more than {PARITY:g}, so nothing "
                "was exported; the exporter of this version of torch is at fault: try another"
            )
        log_line(f"{name}: differs from the network by {off:.1e} at most")
