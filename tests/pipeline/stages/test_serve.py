"""``pagoda serve``: the page's answers are the library's, and what cannot be is one line."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pagoda
from pagoda.artifacts import open_artifact
from pagoda.data.pixels import to_uint8
from pagoda.data.store import open_images
from pagoda.editing import edits
from pagoda.editing.latents import Shell, slerp
from pagoda.editing.search import Search
from pagoda.errors import PagodaError
from pagoda.models import Generator, Teacher
from pagoda.pipeline import cli
from pagoda.pipeline.stages.served import kept_of, open_all
from tests.tiny_run import GEN, TEACHER


@pytest.fixture(scope="module")
def address(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A started server, which ends at Ctrl-C and leaves nothing in the working folder."""
    folder = tmp_path_factory.mktemp("serve")
    (folder / "runs").symlink_to(tiny_run / "runs")
    words = [sys.executable, "-m", "pagoda", "serve", GEN, "--port", "0"]
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True,
                          env=os.environ | {"TMPDIR": str(folder)}) as server:  # fmt: skip
        assert server.stderr is not None
        line = server.stderr.readline()
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+) makes 8 x 8, 16 x 16; .*\n", line)
        assert found, line + server.stderr.read()
        yield found[1]
        server.send_signal(signal.SIGINT)
        assert server.stderr.read() == "ended\n"
        assert server.wait() == 0
    assert [f.name for f in folder.iterdir()] == ["runs"]


@pytest.fixture(scope="module")
def ask(address: str) -> Any:
    """``ask("/inpaint", ...)``: the page's own requests; pictures come as arrays."""
    from gradio_client import Client

    client = Client(address, verbose=False, analytics_enabled=False)

    def asked(name: str, *args: Any) -> list[np.ndarray]:
        found = client.predict(*args, api_name=name)
        first = found[0] if isinstance(found, tuple) else found
        listed = first["value"] if isinstance(first, dict) else first
        return [np.asarray(Image.open(entry["image"])) for entry in listed]

    return asked


@pytest.fixture
def models(linked_run: Path) -> tuple[Generator, Teacher]:
    """What the page has, and files: a picture of class 3, a small one, a mask with a hole."""
    for side, name in ((16, "a.png"), (8, "small.png")):
        images = open_images(open_artifact(f"runs/tiny/data/{side}", "images"), "test")
        Image.fromarray(np.ascontiguousarray(images[3].transpose(1, 2, 0))).save(name)
    paint = np.zeros((512, 512, 4), np.uint8)
    Image.fromarray(paint).save("clear.png")
    paint[129:383, 129:383] = 255  # touches the pixels 4 to 11 of 16
    Image.fromarray(paint).save("painted.png")
    Image.fromarray(paint[..., 0]).save("grey.png")
    Path("text.png").write_text("no picture", encoding="utf-8")
    g, t = pagoda.load(GEN), pagoda.load(TEACHER)
    assert isinstance(g, Generator) and isinstance(t, Teacher)
    return g, t


def shown(images: torch.Tensor) -> np.ndarray:
    return to_uint8(images.flatten(0, 1)).permute(0, 2, 3, 1).numpy()


def picture(name: str) -> np.ndarray:
    return np.asarray(Image.open(name)).transpose(2, 0, 1)[None].copy()


def handle_file(name: str) -> Any:
    from gradio_client import handle_file as sent

    return sent(name)


def painted(name: str) -> dict[str, Any]:
    layer = handle_file(name)
    return {"background": layer, "layers": [layer], "composite": layer}


@pytest.mark.slow
def test_samples_and_what_is_between_are_those_of_the_library(
    ask: Any, models: tuple[Generator, Teacher]
) -> None:
    wanted = models[0].sample([3, 0], range(5, 8)).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(ask("/sample", 16, [3, 0], 5, 3), wanted)
    g = pagoda.load("runs/tiny/b8/gen/8")
    assert isinstance(g, Generator)  # found beside
    first, second = g.latents([4, 9]).split(1)
    z = slerp(first, second, torch.tensor([0.3])).expand(2, -1, -1, -1)
    np.testing.assert_array_equal(ask("/between", 8, 4, 9, 2, 7, 0.3), shown(g(z, [2, 7])[:, None]))


@pytest.mark.slow
def test_edits_are_those_of_the_library(ask: Any, models: tuple[Generator, Teacher]) -> None:
    g, t = models
    kept = np.ones((16, 16), np.float32)
    kept[4:12, 4:12] = 0
    filled = edits.inpaint(
        g, picture("a.png"), kept, 3, search=Search(3), restarts=2, answers=2, seam=1, seed=4,
        shell=Shell(),  # the run of these tests does not say which latents were its generator's
    )  # fmt: skip
    made = ask("/inpaint", 16, handle_file("a.png"), False, painted("painted.png"), 3, 2, 3, 1, 4)
    np.testing.assert_array_equal(made[1:], shown(filled.images))
    assert (made[0][kept == 0] == 255).all()

    large = edits.super_resolve(g, picture("small.png"), 3, teacher=t, consistent=True, seed=4)
    made = ask("/super_resolve", 16, handle_file("small.png"), True, 3, False, 100, True, 4)
    np.testing.assert_array_equal(made[1:], shown(large.images))

    moved = edits.transfer(g, t, picture("a.png").repeat(2, axis=0), 3, [0, 7], keys=[0, 0], seed=4)
    made = ask("/transfer", 16, handle_file("a.png"), False, 3, [0, 7], 4)
    np.testing.assert_array_equal(made[1:], shown(moved.images))


@pytest.mark.slow
def test_a_large_upload_is_cut_to_fit_if_asked(ask: Any, models: tuple[Generator, Teacher]) -> None:
    """Black and white halves, wider than high, in another mode: blocks of the middle square."""
    whole = np.zeros((32, 48), np.uint8)
    whole[:, 24:] = 255
    Image.fromarray(whole).save("wide.png")
    made = ask("/transfer", 16, handle_file("wide.png"), True, 3, [0], 0)
    assert made[0].shape == (8, 8, 3)
    assert (made[0][:, :4] == 0).all() and (made[0][:, 4:] == 255).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "mask", "line"),
    [
        ("a.png", "clear.png", "no hole is painted; paint over"),
        ("small.png", "painted.png", "small.png has 8 x 8 pixels; 16 x 16 are needed"),
        ("grey.png", "painted.png", "grey.png is of mode L, not RGB"),
        ("text.png", "painted.png", "text.png is no PNG, JPEG, WebP or BMP"),
        (None, "painted.png", "there is no picture yet"),
    ],
)
def test_what_cannot_be_is_one_line(
    ask: Any, models: tuple[Generator, Teacher], file: str | None, mask: str, line: str
) -> None:
    from gradio_client.exceptions import AppError

    given = file and handle_file(file)
    with pytest.raises(AppError) as raised:
        ask("/inpaint", 16, given, False, painted(mask), 3, 1, 1, 0, 0)
    said = str(raised.value)
    assert line in said and "\n" not in said and "Traceback" not in said and "/" not in said


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere_and_no_file_is_given_away(
    address: str, models: tuple[Generator, Teacher]
) -> None:
    with urllib.request.urlopen(address) as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self' ")
    for path in ("/etc/passwd", str(Path("a.png").resolve()), "runs/tiny/b8/gen/16/manifest.json"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/gradio_api/file={path}")
        assert refused.value.code in (403, 404)


def test_a_pixel_is_a_hole_where_any_of_it_is_painted() -> None:
    paint = np.zeros((64, 64, 4), np.uint8)
    paint[15, 16, 3] = 1  # one pixel of a block of 4 x 4, and hardly
    other = np.zeros((8, 8, 4), np.uint8)
    other[7, 7] = 255  # another layer, of another size
    kept = kept_of([Image.fromarray(paint), Image.fromarray(other)], 16)
    wanted = np.ones((16, 16))
    wanted[3, 4] = 0
    wanted[14:, 14:] = 0
    np.testing.assert_array_equal(kept, wanted)
    with pytest.raises(PagodaError, match="no hole is painted"):
        kept_of([], 16)
    with pytest.raises(PagodaError, match="nothing is kept"):
        kept_of([Image.new("RGBA", (4, 4), "white")], 16)


def test_a_generator_brings_those_beside_it_and_its_teacher(linked_run: Path) -> None:
    served = open_all([GEN], None)
    assert served.folders == {8: "runs/tiny/b8/gen/8", 16: GEN}
    assert served.teacher is not None and served.teacher.base_res == 8
    assert open_all(["runs/tiny/b8/gen/8", GEN], None).folders == served.folders
    with pytest.raises(PagodaError, match="no generator at 32; there are 8, 16"):
        served.generator(32)
    for asked, line in (((16, [], 0, 1), "no class is chosen"), ((16, [0], 0, 257), "257 x 1")):
        with pytest.raises(PagodaError, match=line):
            served.samples(*asked)


def test_trouble_at_the_start_is_one_line(
    linked_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def line(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["pagoda", "serve", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr().err
        assert left.value.code == 1 and said.startswith("error: ") and said.count("\n") == 1
        return said

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} of 127.0.0.1: address already in use" in line(GEN, "--port", port)
    assert "of no.such.host.invalid" in line(GEN, "--host", "no.such.host.invalid", "--port", "0")
    assert f"{TEACHER} is a teacher" in line(TEACHER, "--port", "0")
    assert "are both of 16 pixels a side" in line(GEN, f"{GEN}/", "--port", "0")
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "the page needs the package gradio" in (said := line(GEN, "--port", "0"))
    assert "'uv sync --extra serve'" in said
