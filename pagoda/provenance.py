"""Folders that are named as models: opened, and what their manifests and runs tell of them.

What a model was made from is in its manifest and in the other artifacts of its run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pagoda.artifacts import MANIFEST, Artifact, open_artifact, peek
from pagoda.errors import PagodaError
from pagoda.evaluation.files import DIFFUSERS
from pagoda.kinds import CARD_FILE, KINDS

MODELS = "generator", "teacher"
"""Kinds of artifacts that are models."""

EXPORTED = "exported"
"""In the configuration of an exported model's manifest: checksums of what lies beside it."""

README, SAMPLES = "README.md", "samples.png"
"""What lies beside an exported model and may be edited."""
PROGRAM, ONNX = "model.pt2", "model.onnx"
"""Its graphs."""
INDEX = "model_index.json"
"""By which the library diffusers knows a pipeline."""

PAPER_INVERSION = {"steps": 40, "solver": "heun", "noise": 0.0, "clamp": True, "guidance": 1.0}
"""How PaGoDA inverts (section 5.1, official code), where a teacher's run does not say."""


def check_model(path: Path) -> None:
    """Refuse a folder in which no model can be, before anything of it is read.

    Raises:
        PagodaError: one line: nothing is there, or what else is.
    """
    if str(path).startswith(DIFFUSERS):
        raise PagodaError(
            f"{path} is a pipeline of the library diffusers, which only 'pagoda sample' and "
            "'pagoda evaluate --captions' take; give the folder of a generator or teacher of pagoda"
        )
    if not path.exists():
        raise PagodaError(
            f"there is no {path}; give the folder of a generator or teacher: 'dvc repro' makes "
            "those of the experiment, in runs/NAME/bBASE/gen/RESOLUTION and runs/NAME/bBASE/teacher"
        )
    if path.is_dir() and not (path / MANIFEST).is_file():
        raise PagodaError(_not_a_model(path))


def open_model(path: Path) -> Artifact:
    """The artifact of a generator or teacher, of a run or exported, all its checksums compared.

    Raises:
        PagodaError: one line: nothing is there, it is something else, or damaged.
    """
    check_model(path)
    return open_artifact(path, peek(path, *MODELS).manifest["kind"])


def _not_a_model(path: Path) -> str:
    """What is said of a folder without a manifest; models that lie below it are named."""
    if (path / INDEX).is_file():
        return f"{path} is a pipeline of the library diffusers; name it as {DIFFUSERS}{path}"
    found = (f for deep in ("*", "*/*", "*/*/*") for f in path.glob(f"{deep}/{MANIFEST}"))
    below = sorted(file.parent for file in found)
    models = [f for f in below if peek(f, *KINDS).manifest["kind"] in MODELS]
    hint = f"; there is {', '.join(map(str, models[:4]))}" if models else ""
    return f"{path} is no generator or teacher: it has no {MANIFEST}{hint}"


def trained_on(artifact: Artifact) -> Artifact | None:
    """The images, or codes, that a model of a run was trained on; only the manifest was read.

    None where they are not in the run's folder any more, or it belongs to no run.
    """
    kinds = {"data": "images", "codes": "codes", "captioned": "captioned"}
    found = (_input(artifact, "data", f"{place}/*", kind) for place, kind in kinds.items())
    return next((images for images in found if images is not None), None)


def class_names(artifact: Artifact) -> list[str] | None:
    """Names of a model's classes: in its card, or known to the images that it was trained on."""
    if names := artifact.card().get("classes"):
        return [str(name) for name in names]
    images = trained_on(artifact)
    return None if images is None else [str(name) for name in images.card()["classes"]]


def teacher_beside(artifact: Artifact) -> Artifact | None:
    """The teacher that a run's generator grew from, of which the manifest alone was read.

    None where it is not in the run's folder any more, or the generator belongs to no run.
    """
    return _input(artifact, "teacher", "teacher", "teacher")


def latents_beside(artifact: Artifact) -> Artifact | None:
    """The latents that a run's generator was distilled from; None as of :func:`teacher_beside`."""
    return _input(artifact, "latents", "latents", "latents")


def schedule(artifact: Artifact) -> dict[str, Any]:
    """A teacher's noise levels, by its card.

    Raises:
        PagodaError: the card does not say them.
    """
    levels = ("sigma_min", "sigma_max", "rho")
    found: Any = artifact.card().get("diffusion")
    known = isinstance(found, dict)
    if not known or not all(isinstance(found.get(key), int | float) for key in levels):
        raise PagodaError(
            f"{artifact.path / CARD_FILE} has no {', '.join(levels)} in diffusion, so the teacher "
            "cannot sample; get it, or export it, once more"
        )
    return dict(found)


def inversion(artifact: Artifact) -> dict[str, Any]:
    """How the run of a teacher inverts images: in its card, or that of the latents beside it."""
    card = artifact.card().get("inversion", {})
    for latents in [] if card else _of_the_run(artifact, "latents", "latents"):
        if latents.manifest["inputs"].get("teacher") == artifact.fingerprint:
            card = latents.card()
    return PAPER_INVERSION | {key: card[key] for key in PAPER_INVERSION if key in card}


def known_of(artifact: Artifact) -> dict[str, Any]:
    """What a model needs in its card where its run is not beside it: ``classes``, their names if
    they are known, and a teacher's ``inversion``.
    """
    names, teacher = class_names(artifact), artifact.manifest["kind"] == "teacher"
    return ({"classes": names} if names else {}) | (
        {"inversion": inversion(artifact)} if teacher else {}
    )


def provenance(artifact: Artifact) -> dict[str, Any]:
    """What is known of a model, as an exported one carries it in its card. JSON-able.

    ``data``: the card of its images, their fingerprint, without names of classes; ``metrics``: the
    rows of the run's evaluation that are its own; ``config``, ``inputs``, ``revision`` and
    ``fingerprint`` of the artifact.
    """
    if told := artifact.card().get("provenance"):
        return dict(told)
    images = trained_on(artifact)
    data = {k: v for k, v in images.card().items() if k != "classes"} if images else {}
    return {
        **{key: artifact.manifest.get(key) for key in ("config", "inputs", "revision")},
        "fingerprint": artifact.fingerprint,
        "data": data | ({"fingerprint": images.fingerprint} if images else {}),
        "metrics": _measured(artifact),
    }


def _measured(artifact: Artifact) -> list[dict[str, Any]]:
    """Rows of a model in the evaluation at its own resolution."""
    card, kind = artifact.card(), artifact.manifest["kind"]
    name = {"teacher": "teacher"}.get(kind, "grown" if card.get("levels") else "student")
    side = card["unet"]["resolution"] << len(card.get("levels", []))
    side *= (card.get("autoencoder") or {}).get("factor", 1)
    for evaluation in _of_the_run(artifact, "evaluate/*", "evaluation"):
        if artifact.fingerprint in evaluation.manifest["inputs"].values():
            rows = evaluation.json("results")["rows"]
            own = [r for r in rows if (r.get("generator"), r.get("resolution")) == (name, side)]
            if own:
                return own
    return []


def _input(artifact: Artifact, name: str, places: str, kind: str) -> Artifact | None:
    """What a model was made from, by its name among the inputs, where it still lies in the run."""
    wanted = artifact.manifest["inputs"].get(name)
    found = (a for a in _of_the_run(artifact, places, kind) if a.fingerprint == wanted)
    return next(found, None)


def _of_the_run(artifact: Artifact, places: str, kind: str) -> Iterator[Artifact]:
    """Artifacts of a kind in folders of the run that a model lies in."""
    for run in artifact.path.resolve().parents[:3]:
        for manifest in sorted(run.glob(f"{places}/{MANIFEST}")):
            with suppress(PagodaError):  # another kind, or damaged: not what is looked for
                yield peek(manifest.parent, kind)
