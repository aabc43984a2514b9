"""What a model was made from, as its manifest and the other artifacts of its run tell."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pagoda.artifacts import MANIFEST, Artifact, peek
from pagoda.errors import PagodaError

PAPER_INVERSION = {"steps": 40, "solver": "heun", "noise": 0.0, "clamp": True, "guidance": 1.0}
"""How PaGoDA inverts (section 5.1, official code), where a teacher's run does not say."""


def trained_on(artifact: Artifact) -> Artifact | None:
    """The images that a model of a run was trained on, of which the manifest alone was read.

    None where they are not in the run's folder any more, or it belongs to no run.
    """
    return _beside(artifact, "data/*", "images", artifact.manifest["inputs"].get("data"))


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
    return _beside(artifact, "teacher", "teacher", artifact.manifest["inputs"].get("teacher"))


def latents_beside(artifact: Artifact) -> Artifact | None:
    """The latents that a run's generator was distilled from; None as of :func:`teacher_beside`."""
    return _beside(artifact, "latents", "latents", artifact.manifest["inputs"].get("latents"))


def inversion(artifact: Artifact) -> dict[str, Any]:
    """How the run of a teacher inverts images: in its card, or that of the latents beside it."""
    card = artifact.card().get("inversion")
    if card is None:
        latents = _beside(artifact, "latents", "latents", artifact.fingerprint, "teacher")
        card = latents.card() if latents else {}
    return PAPER_INVERSION | {key: card[key] for key in PAPER_INVERSION if key in card}


def _beside(
    artifact: Artifact, places: str, kind: str, fingerprint: str | None, made_from: str = ""
) -> Artifact | None:
    """An artifact of the same run: that of a fingerprint, or made from that of one."""
    for run in artifact.path.resolve().parents[:3]:
        for manifest in sorted(run.glob(f"{places}/{MANIFEST}")):
            with suppress(PagodaError):  # another kind, or damaged: not what is looked for
                found = peek(manifest.parent, kind)
                of = found.manifest["inputs"].get(made_from) if made_from else found.fingerprint
                if of == fingerprint:
                    return found
    return None
