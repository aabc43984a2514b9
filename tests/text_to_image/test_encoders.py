"""Encoders of transformers and open_clip by name: the states that these libraries give."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from pagoda.errors import PagodaError
from pagoda.tensors import save_tensors
from pagoda.text_to_image.encoders import open_reader

open_clip = pytest.importorskip("open_clip")
TEXTS = ["a red ring", "an olive disc, tilted left"]


def test_open_clip_by_name_is_its_own_text_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = open_clip.get_model_config("ViT-S-32-alt")
    small["vision_cfg"] |= {"layers": 1, "width": 64}
    small["text_cfg"] |= {"layers": 2, "width": 64, "heads": 4}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "ViT-S-32-alt", small)
    torch.manual_seed(0)
    model = open_clip.create_model("ViT-S-32-alt", pretrained=None).eval()
    file = tmp_path / "w.safetensors"
    save_tensors(file, {k: v.contiguous() for k, v in model.state_dict().items()})
    read, _ = open_reader(f"open_clip:ViT-S-32-alt:{file}", 16)
    states = read(TEXTS)
    theirs = model.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")(TEXTS), normalize=True)
    torch.testing.assert_close(F.normalize(states.pooled, dim=-1), theirs.detach())
    assert states.tokens.shape[:2] == (2, 16) and states.there[0].sum() == 5
    assert not states.cut
    (line,) = read([TEXTS[0] + " and" * 20]).cut
    assert line.startswith("caption 1 has 25 tokens and 16 of them are read")


def test_a_folder_of_clip_is_its_own_text_encoder(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.text_to_image import pipelines

    tokenizer, network = pipelines.clip()
    network.save_pretrained(tmp_path / "clip")
    tokenizer.save_pretrained(tmp_path / "clip")
    states = open_reader(f"clip:{tmp_path / 'clip'}", pipelines.LENGTH)[0](TEXTS)
    for i, text in enumerate(TEXTS):
        ids = tokenizer(text, return_tensors="pt")
        found = network(**ids)
        n = ids.input_ids.shape[1]
        assert states.there[i].sum() == n
        mine = F.normalize(states.tokens[i, :n], dim=-1)
        torch.testing.assert_close(mine, F.normalize(found.last_hidden_state[0], dim=-1).detach(),
                                   atol=1e-5, rtol=1e-4)  # fmt: skip
        torch.testing.assert_close(F.normalize(states.pooled[i], dim=-1),
                                   F.normalize(found.pooler_output[0], dim=-1).detach(),
                                   atol=1e-5, rtol=1e-4)  # fmt: skip
    (tmp_path / "clip" / "model.safetensors").unlink()
    with pytest.raises(PagodaError, match=r"model.safetensors"):
        open_reader(f"clip:{tmp_path / 'clip'}", 9)
