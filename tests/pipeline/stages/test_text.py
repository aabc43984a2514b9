"""The same stages with captions for labels: what is told, drawn, measured, asked for, refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pagoda
from pagoda.artifacts import open_artifact
from pagoda.config import Config, parse, with_derived
from pagoda.data.captioned import image_captions
from pagoda.data.captions import captions
from pagoda.data.embedded import SEED
from pagoda.data.pixels import to_float
from pagoda.data.store import open_images
from pagoda.errors import PagodaError
from pagoda.evaluation.alignment import Alignment
from pagoda.evaluation.streaming import open_split
from pagoda.models import Generator, Teacher
from pagoda.networks.captions import CaptionStates, states_of
from pagoda.networks.clip import Clip, clip_beside, scorer_beside
from pagoda.pipeline.stages import (
    caption,
    clip,
    downsample,
    export,
    sample,
    score,
    scorer,
)
from pagoda.pipeline.stages.captioned import captions_of
from pagoda.pipeline.stages.score import Features, Request, Source
from pagoda.pipeline.stages.score_text import Texts, TextScores
from tests.pipeline.stages.whole import run_all
from tests.tiny import tiny_tree

pytest.importorskip("open_clip")

TEXT: dict[str, Any] = {
    "name": "text", "text.captions": "short", "text.optim.images": 128, "text.width": 16,
    "text.layers": 1, "text.scorer_width": 32, "text.embed": 8, "text.optim.batch": 32,
    "target_res": 16,
    "data.train_images": 100, "data.test_images": 70, "teacher.label_dropout": 0.2,
    "features.images": 64, "teacher.optim.images": 64, "distill.optim.images": 32,
    "grow.optim.images": 32, "invert.images": 16, "distill.discriminator.kind": "conv",
}  # fmt: skip


def config(**changes: Any) -> Config:
    return parse(tiny_tree(**TEXT | changes))


def both_clips(own: Config) -> None:
    clip.run(own)
    scorer.run(own)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything up to the evaluation."""

    return run_all(tmp_path_factory.mktemp("text"), config(), both_clips, caption.run)


def said(split: str, n: int) -> list[str]:
    return captions(np.arange(n), seed=SEED, split=split, variety=1.0, length="short")


def test_labels_are_the_captions_of_the_images(run_folder: Path) -> None:
    for side in (8, 16):
        own = open_artifact(run_folder / f"b8/captioned/{side}", "captioned")
        data = open_artifact(run_folder / f"data/{side}", "images")
        texts = own.card()["classes"]
        assert [texts[i] for i in own.array("train_labels")] == said("train", 100)
        assert len(set(texts)) == len(texts)
        held = own.weights("captions.safetensors")["held_out"]
        assert [texts[i] for i in held] == said("test", 70)
        a, b = (np.asarray(open_images(x, "train")[np.arange(100)]) for x in (own, data))
        assert np.array_equal(a, b)


def test_every_network_holds_the_table_and_what_reads_prompts(run_folder: Path) -> None:
    own = states_of(open_artifact(run_folder / "b8/captioned/8", "captioned"))
    assert own is not None
    for place, kind in (("teacher", "teacher"), ("gen/8", "generator"), ("gen/16", "generator")):
        model = open_artifact(run_folder / "b8" / place, kind)
        label = "net.trunk.label" if kind == "teacher" else "trunk.label"
        assert torch.equal(model.weights()[f"{label}.tokens"], own.tokens)
        reader = clip_beside(model)
        assert reader is not None
        again = reader.read(said("train", 1)).pooled
        labels = open_artifact(run_folder / "b8/captioned/8", "captioned").array("train_labels")
        assert torch.equal(again[0], own.pooled[labels[0]])
    latents = open_artifact(run_folder / "b8/latents", "latents").array("labels")
    assert np.array_equal(latents, np.repeat(labels[:16], 2))


def test_a_prompt_that_is_a_known_caption_gives_the_same_picture(run_folder: Path) -> None:
    for place in ("gen/16", "teacher"):
        known, told = (pagoda.load(run_folder / "b8" / place, "cpu") for _ in "ab")
        assert isinstance(known, Generator | Teacher) and isinstance(told, Generator | Teacher)
        text = known.classes[3]
        assert told.tell(["a red ring with a hat", text]) and told.classes[1] == text
        assert np.array_equal(told.sample(1, [0, 5]), known.sample(3, [0, 5]))
        assert told.tell([text]) == () and told.num_classes == 1
    with pytest.raises(PagodaError, match="prompt 2 is empty"):
        told.tell(["a red ring", " "])


def test_samples_have_the_captions_of_held_out_images_and_are_measured(run_folder: Path) -> None:
    found = open_artifact(run_folder / "b8/evaluate/16", "evaluation").json("results")["rows"]
    scores = {r["generator"]: r for r in found if r["metric"] == "clip_score"}
    assert {"grown", "upsampled_base", "real"} == scores.keys()
    data = open_artifact(run_folder / "data/16", "images")
    model = open_artifact(run_folder / "b8/gen/16", "generator")
    reader = scorer_beside(model)
    assert reader is not None
    real = open_split(data, "test", scores["real"]["n"])  # not the first ones
    x = to_float(torch.from_numpy(real.read(np.arange(len(real)))))
    with torch.no_grad():
        texts = [said("test", 70)[i] for i in real.kept]
        y = reader.texts(reader.tokenizer(texts)[0])
        cosine = float((reader.images(x) * y).sum(1).mean())
    assert scores["real"]["value"] == pytest.approx(cosine, abs=1e-5)
    accuracy = {r["generator"]: r["value"] for r in found if r["metric"] == "class_accuracy"}
    assert accuracy.keys() == scores.keys()  # of the nouns


def test_a_model_is_scored_on_the_captions_of_a_file(run_folder: Path, tmp_path: Path) -> None:
    """Image i is that of prompt i and seed i, and the rows say which captions these are."""
    lines = ["a red ring", "a blue star", *said("test", 20)[2:]]
    file, places = tmp_path / "lines.txt", ("gen/16", "teacher")
    file.write_text("\n".join(lines), encoding="utf-8")
    for place in places:
        source = run_folder / "b8" / place
        scores = TextScores(Texts(file, steps=3 if place == "teacher" else None), None, 4,
                            torch.device("cpu"))  # fmt: skip
        made = scores.model(str(source), 0, 4)
        model = pagoda.load(source, "cpu")
        assert isinstance(model, Generator | Teacher)
        model.tell(lines)
        model.batch = 4
        how: Any = {"steps": 3} if isinstance(model, Teacher) else {}
        alone = np.concatenate([model.sample(i, [i], **how) for i in (2, 9)])
        assert np.array_equal(made.read(np.array([2, 9])), alone)
    features = Features(f"classifier:{run_folder / 'features'}", 4)
    data = Source(run_folder / "data/16", "test")
    tree = score.measure(Request(Source(run_folder / "b8/gen/16"), features, data.path, "test",
                                 metrics="fd", texts=Texts(file)))  # fmt: skip
    assert tree is not None and len(tree["rows"]) == 1
    row = tree["rows"][0]
    assert (row["n"], row["nfe"], row["base_res"], row["seed"]) == (20, 1, 8, 0)
    assert "_20_captions_lines_" in row["protocol"] and row["protocol"].endswith("_uncut")


def test_what_scores_is_another_clip_than_what_reads(run_folder: Path) -> None:
    for place, kind in (("captioned/8", "captioned"), ("gen/16", "generator")):
        model = open_artifact(run_folder / "b8" / place, kind)
        first, second = clip_beside(model), scorer_beside(model)
        assert first is not None and second is not None
        assert (first.spec.width, second.spec.width) == (16, 32)
        assert first.tokenizer.text == second.tokenizer.text
        own = open_artifact(run_folder / "b8/scorer", "clip")
        assert own.card()["clip"]["width"] == 32
        for key, value in second.state_dict().items():
            assert torch.equal(value, own.weights()[key])
    table = states_of(open_artifact(run_folder / "b8/captioned/8", "captioned"))
    assert table is not None and second is not None
    assert not torch.equal(second.read(said("train", 1)).pooled[0], table.pooled[0])


def test_real_pictures_show_their_captions_and_not_those_of_others() -> None:
    from pagoda.data.embedded import render

    n = 30
    x = render(np.arange(n), resolution=32, seed=SEED, split="test")[0]
    own = Alignment({"real": said("test", n)}, None, 32, torch.device("cpu"))
    for rows in (np.arange(20), np.arange(20, n)):
        own.see("real", rows, x[rows])
        own.see("others", rows, x[rows])
    values = {row.metric: row.number for row in own.rows({})}
    assert values["caption"] > 0.8 > 4 * values["caption_by_chance"]


def test_an_exported_generator_of_captions_stands_alone(run_folder: Path, tmp_path: Path) -> None:
    """It reads prompts and takes captions, and its card has the rows that have no reference."""
    source = run_folder / "b8/gen/16"
    export.run(export.Request(str(source), tmp_path / "out"))
    shutil.copytree(tmp_path / "out", tmp_path / "elsewhere/model")
    kept, alone = pagoda.load(source), pagoda.load(tmp_path / "elsewhere/model")
    assert np.array_equal(alone.sample([3], [0]), kept.sample([3], [0]))
    for model in (kept, alone):
        model.tell(["a red ring"])
    assert np.array_equal(alone.sample(seeds=[0]), kept.sample(seeds=[0]))
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "`captions.safetensors`" in text and "clip_score" in text


def test_bad_requests_are_one_line(run_folder: Path, tmp_path: Path) -> None:
    model = str(run_folder / "b8/gen/8")
    request = sample.Request(model, tmp_path / "x.npz", classes="0", prompts="a red ring")
    with pytest.raises(PagodaError, match="--classes and --prompts") as error:
        sample.run(request)
    assert "\n" not in str(error.value) and not (tmp_path / "x.npz").exists()
    for changes, wrong in (
        ({"data.space": "latent", "base_res": 16}, "data.space = 'latent'"),
        ({"text.encoder": "bert"}, "text.encoder = 'bert'"),
        ({"teacher.imported": "weights/x"}, "teacher.imported"),
    ):
        with pytest.raises(PagodaError, match=wrong) as error:
            config(**changes)
        assert "\n" not in str(error.value)


def test_a_folder_with_captions_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    texts = {split: [f"{split} picture {i % 3}" for i in range(8)] for split in ("train", "test")}
    for split, own in texts.items():
        for i, text in enumerate(own):
            file = tmp_path / "set" / split / "ab"[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (20 * i, 0, 0)).save(file)
            file.with_suffix(".txt").write_text(text)
    c = config(**{
        "text.captions": "own", "data.source": "folder", "data.path": "set", "data.num_classes": 2,
        "data.train_images": None, "data.test_images": None, "evaluate.neighbours": 1,
    })  # fmt: skip
    downsample.run(c, 8)
    found = captions_of(c, open_artifact("runs/text/data/8", "images"))
    for split, own in texts.items():
        order = [own[i] for i in range(8)]  # classes take turns, as the numbers do
        assert [found.texts[i] for i in found.rows[split]] == order
    assert found.of_training == ["train picture 0", "train picture 1", "train picture 2"]
    (tmp_path / "set/train/a/0.txt").unlink()
    with pytest.raises(PagodaError, match=r"train/a/0\.png has no caption"):
        captions_of(c, open_artifact("runs/text/data/8", "images"))
    with pytest.raises(PagodaError, match=r"data.source = 'folder'"):
        config(**{"data.source": "folder", "data.path": "set"})


def test_an_encoder_that_is_not_there_is_named(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_folder.parent.parent)
    for name, wrong in (
        ("clip:no/where/here", "there is no text encoder no/where/here"),
        ("open_clip:ViT-B-32:none.safetensors", "there are no weights none.safetensors"),
        ("open_clip:ViT-Z:x", "open_clip has no model 'ViT-Z'"),
    ):
        with pytest.raises(PagodaError, match=wrong) as error:
            caption.run(config(**{"text.encoder": name}), 8)
        assert "\n" not in str(error.value)


def test_a_table_that_no_network_can_hold_is_refused_after_one_caption(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_folder.parent.parent)
    monkeypatch.setattr(caption, "_MOST", 4096)
    read, asked = Clip.read, []

    def counted(self: Clip, texts: list[str]) -> CaptionStates:
        asked.append(len(texts))
        return read(self, texts)

    monkeypatch.setattr(Clip, "read", counted)
    with pytest.raises(PagodaError, match=r"different captions make a table of 0 GiB"):
        caption.run(config(), 8)
    assert asked == [1]


def test_of_mixed_captions_every_class_has_half_of_each_length() -> None:
    names = [f"train/{i}" for i in range(40)]
    found = image_captions(names, source="embedded", split="train", kind="mixed", variety=1.0)
    both = [captions(np.arange(40), seed=SEED, split="train", variety=1.0, length=length)
            for length in ("short", "long")]  # fmt: skip
    assert found == [both[i // 10 % 2][i] for i in range(40)]
    c = config(**{"text.captions": "mixed", "text.asked": "short"})
    assert c.text.held_out == "short" and config().text.held_out == "short"
    with pytest.raises(PagodaError, match=r"text\.asked = 'long'; it must be same while"):
        config(**{"text.captions": "own", "text.asked": "long", "data.source": "folder",
                  "data.path": "set"})  # fmt: skip


@pytest.mark.slow
def test_guided_by_token_and_asked_of_a_clip_in_distillation_and_growth(tmp_path: Path) -> None:
    """The paper's parts for text together: weight, discriminator of tokens, similarity."""
    own: dict[str, Any] = {"invert.guidance_max": 4.0}
    for key in ("distill", "grow"):
        own |= {f"{key}.method": "guided", f"{key}.discriminator.kind": "tokens",
                f"{key}.discriminator.backbones": ["tf_efficientnet_lite0"],
                f"{key}.discriminator.input_side": 64, f"{key}.loss.adversarial": "hinge",
                f"{key}.loss.adversarial_start": 0.0}  # fmt: skip
    tree = tiny_tree(**TEXT | own | {"distill.loss.regression": "noise_to_data"})
    for section in (tree["distill"], tree["grow"]):
        section |= {"clip_loss": {"weight": 0.05}, "estimator": {"kind": "clip", "tolerance": 3.0}}
        section["discriminator"]["r1"] = 0.0
    c = parse(with_derived(tree))
    folder = run_all(tmp_path, c, both_clips, caption.run)
    for side in (8, 16):
        model = open_artifact(folder / f"b8/gen/{side}", "generator")
        assert model.card()["estimator"]["kind"] == "clip"
        assert model.card()["clip_loss"] == {"weight": 0.05, "kind": "angle"}
        assert np.isfinite(model.card()["metrics"]["loss_clip"])
        assert model.card()["metrics"]["loss_adv"] != 0
    found = open_artifact(folder / "b8/evaluate/16", "evaluation").json("results")["rows"]
    assert {r["generator"] for r in found if r["metric"] == "clip_score"} >= {"grown", "real"}
