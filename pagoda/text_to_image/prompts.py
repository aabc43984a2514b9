"""Prompts to what a text-conditioned network is told: CLIP's or T5's states, by transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pagoda.errors import PagodaError

T5_LENGTH = 77
"""Tokens that DeepFloyd-IF was trained with; its tokenizer would take more."""
_SHOWN = 40  # characters of a prompt in a message


@dataclass(frozen=True)
class Encoded:
    """Prompts as the network is told them.

    Attributes:
        states: (n, l, d), the encoder's last states.
        cut: for each prompt that was too long, a line that says where it was cut.
    """

    states: Tensor
    cut: tuple[str, ...] = ()


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer and its encoder.

    Attributes:
        tokenizer: of transformers.
        network: ``CLIPTextModel`` or ``T5EncoderModel``.
        length: tokens of a prompt, those of its start and end among them; shorter ones are padded.
        masked: whether the padding is hidden from the encoder and the prompt is put in lower case,
            as IF does with T5; Stable Diffusion does neither.
    """

    tokenizer: Any
    network: nn.Module
    length: int
    masked: bool

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Encoded:
        """Encode prompts; the empty one stands for no text."""
        texts = [p.lower().strip() for p in prompts] if self.masked else list(prompts)
        device = next(self.network.parameters()).device
        states, cut = [], []
        for i, text in enumerate(texts):  # one at a time: a prompt's states have the same bits
            ids, mask, line = self.tokens(i, text)  # whatever stands beside it
            told = {"attention_mask": mask.to(device)} if self.masked else {}
            states.append(self.network(ids.to(device), **told)[0])
            cut += line
        return Encoded(torch.cat(states), tuple(cut))

    def tokens(self, i: int, text: str) -> tuple[Tensor, Tensor, list[str]]:
        """Tokens and mask (1, l) of prompt i, and a line if it was cut."""
        made = self.tokenizer(
            text, padding="max_length", max_length=self.length, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        ids, mask = made.input_ids, made.attention_mask
        if (n := len(self.tokenizer(text, verbose=False).input_ids)) <= self.length:
            return ids, mask, []
        kept = self.tokenizer.decode(ids[0], skip_special_tokens=True).strip()
        line = (
            f"prompt {i + 1} has {n} tokens and the text encoder reads {self.length}: it is cut "
            f"after '...{kept[-_SHOWN:]}'"
        )
        return ids, mask, [line]


def checked(prompts: str | Sequence[str]) -> list[str]:
    """Prompts as a list.

    Raises:
        PagodaError: there is none, one is no text, or empty.
    """
    given = [prompts] if isinstance(prompts, str) else list(prompts)
    if not given:
        raise PagodaError("no prompt is given, so there is nothing to make")
    for i, prompt in enumerate(given):
        if not isinstance(prompt, str):
            raise PagodaError(f"prompt {i + 1} is a {type(prompt).__name__}, expected a text")
        if not prompt.strip():
            raise PagodaError(
                f"prompt {i + 1} is empty; write one, or any with guidance=0, which ignores it"
            )
    return given
