"""A finished experiment made of small random arrays: the artifacts a pipeline would leave."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from pagoda import artifacts
from pagoda.config import Config, parse
from pagoda.config.paths import Paths
from tests.tiny import smoke_tree

CLASSES = ["disc", "square", "triangle", "ring", "plus", "star", "stripes", "checker", "crescent",
           "dumbbell"]  # fmt: skip
# Prototype-like distances, so that pages look as they will.
DISTANCES = {
    8: {"teacher": 3.63, "student": 4.9, "untrained_teacher_weights": 288.1, "untrained": 1887.0,
        "real": 0.402},
    16: {"grown": 20.8, "ungrown": 201.0, "upsampled_base": 206.3, "real": 0.321},
    32: {"grown": 37.4, "ungrown": 65.3, "upsampled_base": 80.6, "real": 0.288},
}  # fmt: skip
PROTOCOLS = {
    "fd": "fd_classifier_2k", "classifier_score": "score_classifier_2k_s10",
    "precision": "precision_classifier_2k_k3", "recall": "recall_classifier_2k_k3",
    "class_accuracy": "accuracy_classifier_2k",
}  # fmt: skip
NFE = {"teacher": 35, "real": None, "upsampled_base": 1}


def make_config(**overrides: Any) -> Config:
    """The default configuration with dotted keys replaced."""
    return parse(smoke_tree(**overrides))


def result_rows(config: Config, resolution: int) -> list[dict[str, Any]]:
    """Five metrics of every generator at one resolution."""
    base = resolution == config.base_res
    known = DISTANCES[resolution] if base == (resolution == 8) else {}
    names = ("teacher", "student", "untrained_teacher_weights", "untrained", "real") if base else (
        "grown", "ungrown", "upsampled_base", "real")  # fmt: skip
    rows = []
    for i, name in enumerate(names):
        fd = known.get(name, 3.0 + 10 * i)
        values = {"fd": fd, "classifier_score": 8 / (1 + fd / 40), "precision": 1 / (1 + fd / 60),
                  "recall": 1 / (1 + fd / 30), "class_accuracy": 1 / (1 + fd / 90)}  # fmt: skip
        for metric, value in values.items():
            rows.append({
                "generator": name, "metric": metric, "protocol": PROTOCOLS[metric],
                "value": value, "n": 2048, "seed": config.evaluate.seed, "resolution": resolution,
                "nfe": NFE.get(name, 1), "reference": f"{resolution:02d}" * 32,
                "reference_n": 2048 if metric in ("precision", "recall") else 8192,
                "features": "fe" * 32, "revision": "0123456789ab", "device": "cpu",
                "base_res": config.base_res,
            })  # fmt: skip
    return rows


def pictures(shape: tuple[int, ...], resolution: int, seed: int) -> np.ndarray:
    """Smooth coloured discs, (*shape, 3, R, R) uint8, alike at every resolution."""
    rng = np.random.default_rng(seed)
    grid = (np.arange(resolution) + 0.5) / resolution
    y, x = np.meshgrid(grid, grid, indexing="ij")
    centre, radius = (
        rng.uniform(0.3, 0.7, (*shape, 2, 1, 1)),
        rng.uniform(0.15, 0.35, (*shape, 1, 1)),
    )
    inside = 1 / (1 + np.exp(((x - centre[..., 0, :, :]) ** 2 + (y - centre[..., 1, :, :]) ** 2
                              - radius**2) * 120))  # fmt: skip
    ink, paper = rng.uniform(0, 255, (2, *shape, 3, 1, 1))
    mixed = inside[..., None, :, :] * ink + (1 - inside[..., None, :, :]) * paper
    return mixed.astype(np.uint8)


def history_rows(stage: str, images: int, n: int = 100) -> list[dict[str, Any]]:
    """Rows like a training stage's; growth and distillation start their adversary late."""
    rng = np.random.default_rng(len(stage))
    rows = []
    for i in range(n):
        t = (i + 1) / n
        row: dict[str, Any] = {"images": round(images * t), "step": round(images * t / 50),
                               "seconds": round(60 * t, 3)}  # fmt: skip
        noise = float(rng.normal(0, 0.05))
        if stage == "features":
            row |= {"loss": 2.3 * 0.1**t + abs(noise), "accuracy": min(1.0, t + noise / 4)}
        elif stage == "invert":
            if i == n - 1:
                row |= {"round_trip_mse": 0.003, "latent_std": 0.8}
        elif stage == "teacher":
            row |= {"loss": 1.1 * 0.15**t * (1 + noise), "grad_norm": 0.5 + abs(noise), "lr": 2e-3}
        else:
            row |= {"loss": 0.3 * 0.05**t * (1 + noise), "loss_rec": 0.3 * 0.05**t * (1 + noise),
                    "grad_norm": 0.2 + abs(noise), "lr": 1e-3 * (1 - t)}  # fmt: skip
            if t > 0.4:
                row |= {"loss_adv": 0.7 + noise, "loss_d": 1.3 + noise, "logit_real": 0.5 + noise,
                        "logit_fake": -0.5 - noise, "lambda": 0.02}  # fmt: skip
        rows.append(row)
    return rows


def write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_experiment(config: Config, columns: int = 8) -> None:
    """All artifacts that the report and the tracker read, below the working folder."""
    paths = Paths(config)
    name = {"name": config.name}
    for res in config.resolutions:
        with artifacts.create(paths.data(res), "images", config=name | {"resolution": res}) as out:
            for split in ("train", "test"):
                np.save(out / f"{split}_images.npy", pictures((2,), res, 0))
                np.save(out / f"{split}_labels.npy", np.arange(2))
                (out / f"{split}_names.txt").write_text("a\nb\n")
            artifacts.write_json(
                out / "card.json",
                {"classes": CLASSES, "recipe": "box", "n": {"train": 8192, "test": 2048}},
            )
    identity = name | {"base_res": config.base_res}
    with artifacts.create(paths.latents, "latents", config=identity) as out:
        np.save(out / "latents.npy", np.zeros((2, 3, config.base_res, config.base_res), np.float32))
        for file, kind in (("indices", np.int64), ("flips", np.uint8), ("labels", np.int64)):
            np.save(out / f"{file}.npy", np.zeros(2, kind))
        artifacts.write_json(out / "card.json", {
            "solver": "heun", "nfe": 19, "round_trip_mse": 0.00312, "latent_mean": 0.001,
            "latent_std": 0.804, "latent_kurtosis": 3.2,
        })  # fmt: skip
    for res in config.resolutions:
        write_evaluation(config, res, result_rows(config, res), columns)
    stages = {"features": 25600, "teacher": 128000, "invert": 4096, "distill": 19200}
    stages |= {f"grow-{r}": 12000 for r in config.growth}
    for stage, images in stages.items():
        write_history(paths.history(stage), history_rows(stage, images))


def write_evaluation(
    config: Config, resolution: int, rows: list[dict[str, Any]], columns: int = 8
) -> None:
    """One evaluation artifact: the given rows and random pictures."""
    base = resolution == config.base_res
    grids = ["student", "teacher"] if base else ["grown", "upsampled_base"]
    identity = {"name": config.name, "base_res": config.base_res, "resolution": resolution}
    path = Paths(config).evaluation(resolution)
    with artifacts.create(path, "evaluation", config=identity) as out:
        artifacts.write_json(out / "results.json", {"rows": rows, "sheets": grids})
        shape = (len(grids), len(CLASSES), columns)
        np.save(out / "samples.npy", pictures(shape, resolution, 1))
        np.save(out / "neighbours.npy", pictures((1, len(CLASSES), min(4, columns)), resolution, 2))


class Page(HTMLParser):
    """Everything a page refers to, and whether its tags are balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "wbr", "link", "br"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
