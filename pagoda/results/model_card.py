"""The model card of an exported model: ``README.md``, filled from what its own card tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from pagoda.results.labels import metric_label

_FILES = {
    "model.safetensors": "weights, of the exponential moving average",
    "autoencoder.safetensors": "weights of the autoencoder whose codes it models; it decodes them",
    "captions.safetensors": "text encoder, the CLIP that scores, and captions of held-out images",
    "ratio.safetensors": "weights of the ratio network, which best-of-N sampling asks",
    "estimator.safetensors": "weights of the network that guesses the weight of guidance",
    "card.json": "configuration: architecture, training, provenance",
    "manifest.json": "checksums of the files above and of the graphs, which `pagoda.load` compares",
    "model.pt2": "the network as a graph of `torch.export`, any batch size",
    "model.onnx": "the network as ONNX, any batch size",
    "model_index.json": "what the library diffusers opens: `PagodaPipeline` of `pagoda.diffusers`",
    "samples.png": "samples, not selected",
    "README.md": "this page",
}


def model_card(
    kind: str, card: Mapping[str, Any], *, licence: str | None, place: str, shown: str,
    parameters: int, files: Sequence[str],
) -> str:  # fmt: skip
    """Markdown, with the head that the Hugging Face hub reads.

    Args:
        kind: ``generator`` or ``teacher``.
        card: of the exported model, with ``provenance`` and ``classes``.
        licence: identifier of the hub (``apache-2.0``); None: not stated.
        place: what is to be loaded: the folder, or its name on the hub.
        shown: what the grid of samples shows; empty without one.
        parameters: of the network.
        files: of the folder.
    """
    told, levels = card["provenance"], len(card.get("levels", []))
    base = card["unet"]["resolution"] * (card.get("autoencoder") or {}).get("factor", 1)
    measured = {row["metric"]: row for row in told["metrics"]}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    return environment.get_template("model_card.md.j2").render(
        kind=kind, licence=licence, place=place, shown=shown, parameters=parameters,
        name=told["config"].get("name", "imported"), side=base << levels, base=base,
        levels=levels, classes=card["classes"], data=_data(told["data"]), training=_training(card),
        metrics=told["metrics"], train_share=measured.get("train_share"), label=metric_label,
        files={file: _FILES.get(file, "other weights of its method") for file in files},
    )  # fmt: skip


def _data(card: Mapping[str, Any]) -> dict[str, str]:
    """What is told of the training images."""
    rows = {
        "source": card.get("source"),
        "images": ", ".join(f"{n:,} {split}" for split, n in card.get("n", {}).items()),
        "cut": card.get("recipe"),
        "pixels_a_side": card.get("resolution"),
        "fingerprint": card.get("fingerprint"),
    }
    return {key: str(value) for key, value in rows.items() if value}


def _training(card: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of training, in the order of a reader's questions."""
    told, loss = card["provenance"], card.get("loss") or {}
    rows = {
        "images_seen_in_its_own_stage": f"{seen:,}" if (seen := card.get("images_seen")) else None,
        "objective": loss.get("regression"),
        "adversarial_loss": loss.get("adversarial"),
        "weight_of_the_adversarial_loss": loss.get("weight"),
        "networks_in_its_feature_loss": ", ".join(loss.get("backbones", []))
        if loss.get("feature_weight")
        else None,
        "noise": ", ".join(f"{k} {v:g}" for k, v in card.get("diffusion", {}).items()),
        "base_resolution": told["config"].get("base_res"),
        "code": told["revision"],
        "made_from": ", ".join(f"{k} {v[:10]}" for k, v in (told["inputs"] or {}).items()),
        "fingerprint": told["fingerprint"],
    }
    return {key: value for key, value in rows.items() if value not in (None, "")}
