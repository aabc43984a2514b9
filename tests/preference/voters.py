"""Voters of known preference, who see what a browser would: pictures and nothing else."""

from __future__ import annotations

import io
import json
import math
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pagoda.pipeline.stages.address import listen, url
from pagoda.pipeline.stages.prefer_server import Server
from pagoda.preference.study import PICTURES, VOTES, read_study
from pagoda.preference.votes import Store

SIDE = 16


def write_images(folder: Path, level: int, counts: dict[str, int], side: int = SIDE) -> None:
    """A folder a class; the upper half of every image is ``level`` brighter than the lower one."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = np.full((side, side, 3), 60 + i, np.uint8)
            image[: side // 2] += level
            Image.fromarray(image).save(folder / name / f"{i:03}.png")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a study that is asked in this process."""
    study = read_study(folder)
    store, door = Store(folder / VOTES, study), listen("127.0.0.1", 0)
    server = Server(study, store, folder / PICTURES, door, "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield url(door, "127.0.0.1")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        store.close()


def post(address: str, path: str, tree: dict[str, Any], **headers: str) -> dict[str, Any]:
    """The answer to a request of the page."""
    wanted = {"Content-Type": "application/json"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    request = urllib.request.Request(f"{address}{path}", json.dumps(tree).encode(), wanted)
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.loads(answer.read())
        return found


def refused(address: str, path: str, tree: dict[str, Any], **headers: str) -> tuple[int, str]:
    """Status and line of a request that is not answered."""
    try:
        post(address, path, tree, **headers)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())["error"]
    raise AssertionError("it was answered")


def gap(address: str, name: str) -> float:
    """How much brighter the upper half of a picture is: near 0 where pixels were shuffled."""
    with urllib.request.urlopen(f"{address}{name}") as answer:
        pixels = np.asarray(Image.open(io.BytesIO(answer.read())), float)
    half = len(pixels) // 2
    return float(pixels[:half].mean() - pixels[half:].mean())


def judge(sharpness: float, tie: float = 0.0) -> Callable[[float, float, Any], str]:
    """Who prefers the larger gap with probability 1 / (1 + exp(-difference * sharpness))."""

    def judged(left: float, right: float, rng: Any) -> str:
        if rng.random() < tie and min(left, right) > 5:
            return "tie"
        p = 1 / (1 + math.exp(-max(min((left - right) * sharpness, 50), -50)))
        return "left" if rng.random() < p else "right"

    return judged


def vote(
    address: str, name: str, how: Callable[[float, float, Any], str], seed: int,
    keys: tuple[str, ...] = ("quality", "match"), most: int | None = None,
) -> int:  # fmt: skip
    """Answer all that a voter is asked; the number of votes."""
    rng, seen, done = np.random.default_rng(seed), dict[str, float](), 0
    now = post(address, "/next", {"voter": name})
    while now["trial"] is not None and (most is None or done < most):
        for side in ("left", "right"):
            if now[side] not in seen:
                seen[now[side]] = gap(address, now[side])
        answers = {key: how(seen[now["left"]], seen[now["right"]], rng) for key in keys}
        said = {"voter": name, "trial": now["trial"], "answers": answers, "seconds": 1.5}
        now, done = post(address, "/vote", said), done + 1
    return done
