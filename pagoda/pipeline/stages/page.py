"""The page of ``pagoda serve``: gradio's controls around :class:`.served.Served`.

Pictures go to the browser as they are, and its style enlarges them with crisp pixels.
"""

from __future__ import annotations

import functools
import html
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from pagoda.errors import PagodaError, first_line
from pagoda.pipeline.stages.edit_inputs import Searched
from pagoda.pipeline.stages.served import (
    MOST_ANSWERS,
    MOST_STEPS,
    Picture,
    Served,
    read_upload,
    timed,
)

_CANVAS = 512  # pixels a side on which holes are painted
_WAITING = 64  # requests, others are told to come back
_SHOWN = 8  # classes at the start, and samples a line

THEME = gr.themes.Base(  # gradio's other themes fetch their letters from the net
    font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
)
CSS = """
.gradio-container {max-width: 1240px !important; width: 100% !important; margin: 0 auto !important}
.pagoda img {image-rendering: pixelated}
.pagoda .image-frame img {width: 100%; height: 100%; object-fit: contain}
.pagoda .grid-wrap {max-height: 80vh; min-height: 0; overflow-y: auto}
.pagoda .grid-wrap .grid-container {grid-template-columns: repeat(var(--grid-cols), minmax(0, 1fr));
  grid-auto-rows: auto; grid-template-rows: none}
.pagoda .preview {background: var(--background-fill-primary)}
.pagoda .thumbnail-item {display: flex; flex-direction: column; aspect-ratio: auto; height: auto}
.pagoda .thumbnail-item img {aspect-ratio: 1}
.pagoda .thumbnail-item .caption-label
  {position: static; max-width: 100%; border: 0; padding: 1px 2px; font-size: 12px}
.pagoda.large .grid-container
  {grid-template-columns: repeat(auto-fill, minmax(min(180px, 45%), 1fr)) !important}
@media (max-width: 700px) {.pagoda:not(.large) .grid-container
  {grid-template-columns: repeat(auto-fill, minmax(64px, 1fr)) !important}}
"""


def plain(function: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose trouble is one line on the page; what no user can mend is said here, too."""

    @functools.wraps(function)
    def handler(*args: Any) -> Any:
        try:
            return function(*args)
        except PagodaError as error:
            line = str(error)
        except Exception as error:
            traceback.print_exc()
            line = f"unexpected {type(error).__name__}: {first_line(error)}"
        raise gr.Error(html.escape(line, quote=False), print_exception=False)

    return handler


def build(served: Served) -> gr.Blocks:
    """The page.

    Args:
        served: what it is a page of.
    """
    largest = max(served.folders)
    with gr.Blocks(
        title="pagoda", analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:  # fmt: skip
        gr.Markdown(f"# pagoda\n`{served.folders[largest]}`")
        resolution = gr.Radio(
            [(f"{r} x {r}", r) for r in served.folders], value=largest, label="Resolution",
            visible=len(served.folders) > 1,
        )  # fmt: skip
        with gr.Tabs():
            for tab in (_samples, _between, _inpaint, _super_resolve, _transfer):
                tab(served, resolution)
    # One request at a time: they share the network, and its processor.
    page.queue(default_concurrency_limit=1, max_size=_WAITING, api_open=False)
    return page


def _samples(served: Served, resolution: gr.Radio) -> None:
    names = served.classes

    def sample(resolution: int, classes: list[int], first: float, n: float) -> Any:
        began = time.perf_counter()
        made = served.samples(resolution, classes, _whole(first), _whole(n))
        columns = max(4, min(_whole(n) * max(1, _SHOWN // _whole(n)), len(made)))
        return gr.Gallery(made, columns=columns), timed(began, made)

    with gr.Tab("Samples"), gr.Row():
        with gr.Column(scale=1, min_width=280):
            classes = _classes(names, "Classes", list(range(len(names)))[:_SHOWN])
            first = _number("First seed", 0)
            n = gr.Slider(1, 12, _SHOWN // 2, step=1, label="Seeds of each class")
            go = gr.Button("Make samples", variant="primary")
        with gr.Column(scale=2, min_width=280):
            shown, said = _gallery("Samples"), gr.Markdown()
    _on([go.click, resolution.input], sample, [resolution, classes, first, n], [shown, said])


def _between(served: Served, resolution: gr.Radio) -> None:
    names = served.classes

    def between(
        resolution: int, a: float, b: float, first: int, second: int, t: float
    ) -> list[tuple[np.ndarray, str]]:
        return served.between(resolution, (_whole(a), _whole(b)), (first, second), t)

    with gr.Tab("Interpolate"), gr.Row():
        with gr.Column(scale=1, min_width=280):
            with gr.Row():
                a, b = _number("First seed", 0), _number("Second seed", 1)
            with gr.Row():
                first = _class(names, "First class", 0)
                second = _class(names, "Second class", min(1, len(names) - 1))
            t = gr.Slider(0, 1, 0, step=0.02, label="Way from the first seed to the second")
            gr.Markdown("The same latent is shown in each class.")
        with gr.Column(scale=2, min_width=280):
            shown = _gallery("Between", "large")
    inputs = [resolution, a, b, first, second, t]
    changed = [c.change for c in (a, b, first, second, t)]
    _on([resolution.input, *changed], between, inputs, [shown], often=True)


def _inpaint(served: Served, resolution: gr.Radio) -> None:
    names = served.classes

    def canvas(resolution: int, file: str | None, fit: bool) -> Any:
        if file is None:
            return None
        image = read_upload(Path(file), (resolution,), fit).transpose(1, 2, 0)
        whole = Image.fromarray(image).resize((_CANVAS, _CANVAS), Image.Resampling.NEAREST)
        return {"background": whole, "layers": [], "composite": whole}

    def inpaint(
        resolution: int, file: str | None, fit: bool, painted: Any, label: int, answers: float,
        steps: float, seam: float, seed: float,
    ) -> Any:  # fmt: skip
        began = time.perf_counter()
        how = Searched(_whole(steps), restarts=2, answers=_whole(answers))
        layers = painted["layers"] if painted else []
        made = served.inpaint(resolution, _given(file), fit, layers, label, how, _whole(seam),
                              _whole(seed))  # fmt: skip
        return _shown(began, made)

    with gr.Tab("Inpaint"), gr.Row():
        with gr.Column(scale=1, min_width=280):
            file, fit, label, seed, take = _source(names)
            answers = gr.Slider(1, MOST_ANSWERS, 1, step=1, label="Answers")
            steps = gr.Slider(1, MOST_STEPS, 100, step=1, label="Steps of the search")
            seam = gr.Slider(0, 8, 1, step=1, label="Blended seam, pixels")
        with gr.Column(scale=2, min_width=280):
            painted = gr.ImageEditor(
                label="Paint holes", type="pil", sources=(), transforms=(),
                layers=False, canvas_size=(_CANVAS, _CANVAS), fixed_canvas=True, format="png",
                brush=gr.Brush(96, ["#ffffff"], "#ffffff", "fixed"), buttons=[], height=480,
                elem_classes="pagoda",
            )  # fmt: skip
            go = gr.Button("Fill", variant="primary")
            shown, said = _gallery("Filled", "large"), gr.Markdown()
    _on([take.click], _taken(served), [resolution, label, seed], [file])
    _on([file.change, fit.input, resolution.input], canvas, [resolution, file, fit], [painted])
    inputs = [resolution, file, fit, painted, label, answers, steps, seam, seed]
    _on([go.click], inpaint, inputs, [shown, said])


def _super_resolve(served: Served, resolution: gr.Radio) -> None:
    names = served.classes

    def super_resolve(
        resolution: int, file: str | None, fit: bool, label: int, search: bool, steps: float,
        consistent: bool, seed: float,
    ) -> Any:  # fmt: skip
        began = time.perf_counter()
        how = Searched(_whole(steps) if search else None)
        made = served.super_resolve(resolution, _given(file), fit, label, how, consistent,
                                    _whole(seed))  # fmt: skip
        return _shown(began, made)

    with gr.Tab("Super-resolution"), gr.Row():
        with gr.Column(scale=1, min_width=280):
            file, fit, label, seed, take = _source(names, "Take a sample, made small")
            search = gr.Checkbox(served.teacher is None, label="Search for a nearer latent",
                                 interactive=served.teacher is not None)  # fmt: skip
            steps = gr.Slider(1, MOST_STEPS, 100, step=1, label="Steps of the search")
            consistent = gr.Checkbox(True, label="Give blocks exactly the means of the upload")
        with gr.Column(scale=2, min_width=280):
            go = gr.Button("Enlarge", variant="primary")
            shown, said = _gallery("Enlarged", "large"), gr.Markdown()
    _on([take.click], lambda r, y, s: _stored(served.shrunk(r, y, _whole(s))),
        [resolution, label, seed], [file], name="small")  # fmt: skip
    inputs = [resolution, file, fit, label, search, steps, consistent, seed]
    _on([go.click], super_resolve, inputs, [shown, said])


def _transfer(served: Served, resolution: gr.Radio) -> None:
    names = served.classes

    def transfer(
        resolution: int, file: str | None, fit: bool, label: int, to: list[int], seed: float
    ) -> Any:
        began = time.perf_counter()
        return _shown(began, served.transfer(resolution, _given(file), fit, label, to,
                                             _whole(seed)))  # fmt: skip

    with gr.Tab("Class transfer"):
        if served.teacher is None:
            gr.Markdown("This needs the teacher that the generator grew from, which is not in its "
                        "run's folder: start again with `--teacher FOLDER`.")  # fmt: skip
            return
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file, fit, label, seed, take = _source(names)
                to = _classes(names, "Classes to go to", list(range(len(names)))[:_SHOWN])
            with gr.Column(scale=2, min_width=280):
                go = gr.Button("Transfer", variant="primary")
                shown, said = _gallery("Transferred", "large"), gr.Markdown()
    _on([take.click], _taken(served), [resolution, label, seed], [file])
    _on([go.click], transfer, [resolution, file, fit, label, to, seed], [shown, said])


def _source(names: Sequence[str], take: str = "Take a sample") -> tuple[Any, ...]:
    """A picture to edit: a file, or a sample of its class and a seed."""
    file = gr.Image(label="Picture", type="filepath", sources=["upload", "clipboard"],
                    height=220, format="png", buttons=[], elem_classes="pagoda")  # fmt: skip
    # The file as it is: the library says what may be a picture, and what is wrong with others.
    # No subclass: gradio would write a .pyi file beside this module.
    file.preprocess = _path  # type: ignore[assignment, method-assign]
    fit = gr.Checkbox(True, label="Cut and shrink a large one to fit")
    with gr.Row():
        label, seed = _class(names, "Class of the picture", 0), _number("Seed", 0)
    return file, fit, label, seed, gr.Button(take)


def _path(sent: Any) -> str | None:
    return None if sent is None else sent.path


def _taken(served: Served) -> Callable[..., Any]:
    def taken(resolution: int, label: int, seed: float) -> Any:
        return _stored(served.samples(resolution, [label], _whole(seed), 1)[0][0])

    return taken


def _stored(image: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image))


def _shown(began: float, made: list[Picture]) -> tuple[list[Picture], str]:
    return made, timed(began, made)


def _on(
    events: list[Any], function: Callable[..., Any], inputs: list[Any], outputs: list[Any], *,
    often: bool = False, name: str | None = None,
) -> None:  # fmt: skip
    """Run a handler at events; where they come ``often``, the last one counts."""
    gr.on(events, plain(function), inputs, outputs, api_name=name or function.__name__,
          trigger_mode="always_last" if often else "once", show_progress="minimal",
          concurrency_id="model", concurrency_limit=1)  # fmt: skip


def _gallery(label: str, *classes: str) -> gr.Gallery:
    return gr.Gallery(label=label, show_label=False, format="png", object_fit="contain",
                      height="auto", buttons=["download", "fullscreen"], interactive=False,
                      elem_classes=["pagoda", *classes])  # fmt: skip


def _class(names: Sequence[str], label: str, value: int) -> gr.Dropdown:
    return gr.Dropdown([(n, y) for y, n in enumerate(names)], value=value, label=label,
                       min_width=120)  # fmt: skip


def _classes(names: Sequence[str], label: str, value: list[int]) -> gr.Dropdown:
    return gr.Dropdown([(n, y) for y, n in enumerate(names)], value=value, label=label,
                       multiselect=True)  # fmt: skip


def _number(label: str, value: int) -> gr.Number:
    return gr.Number(value, label=label, precision=0, minimum=0, min_width=100)


def _whole(value: float | None) -> int:
    """What a field for whole numbers holds; it may be empty."""
    if value is None:
        raise PagodaError("a field for a whole number is empty; fill it in")
    return int(value)


def _given(file: str | None) -> Path:
    if file is None:
        raise PagodaError("there is no picture yet; upload one or take a sample")
    return Path(file)
