"""Tiny pipelines of diffusers with random weights, each from its own configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

SD = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "clip_sample": False,
    "steps_offset": 1,
}  # fmt: skip
IF = {
    "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True,
    "thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5,
    "variance_type": "learned_range",
}  # fmt: skip
WORDS = ("a red circle on a pale blue background", "a small green star", "two rings", "blue square")


LENGTH = 48


def lively(network: nn.Module, seed: int, scale: float = 1.0) -> Any:
    """Random weights everywhere, those that begin at zero too: all inputs matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for p in network.parameters():
            p.data.normal_(0, scale / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.2)
            if p.ndim < 2:
                p.data += 0.5
    return network.eval().requires_grad_(False)


def unet(**options: Any) -> Any:
    from diffusers import UNet2DConditionModel

    own: dict[str, Any] = {
        "sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (4, 8),
        "layers_per_block": 1, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "cross_attention_dim": 32,
        "norm_num_groups": 2, "attention_head_dim": 4,
    }  # fmt: skip
    return lively(UNet2DConditionModel(**own | options), 1)


def if_unet() -> Any:
    """Of stage I: three channels, and a learned variance beside them."""
    return unet(
        in_channels=3, out_channels=6, block_out_channels=(8, 16), encoder_hid_dim=32,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=32,
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        addition_embed_type="text", addition_embed_type_num_heads=2, act_fn="gelu",
        cross_attention_norm="group_norm", resnet_time_scale_shift="scale_shift",
    )  # fmt: skip


def autoencoder() -> Any:
    from diffusers import AutoencoderKL

    return lively(AutoencoderKL(
        block_out_channels=[4, 8], down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4, norm_num_groups=2,
    ), 2)  # fmt: skip


def clip() -> tuple[Any, Any]:
    """A byte-level tokenizer without merges, and an encoder of LENGTH tokens."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    units = [chr(i) for i in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    units += [chr(256 + i) for i in range(68)]
    words = [*units, *(u + "</w>" for u in units), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({w: i for i, w in enumerate(words)}, [], model_max_length=LENGTH)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=37, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=LENGTH,
        bos_token_id=len(words) - 2, eos_token_id=len(words) - 1,
    )  # fmt: skip
    return tokenizer, lively(CLIPTextModel(config), 3)


def t5(folder: Path) -> tuple[Any, Any]:
    """A SentencePiece model trained on a few words, as released ones come, and its encoder."""
    import sentencepiece
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    folder.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 20), model_prefix=str(folder / "spiece"), vocab_size=28,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()
    tokenizer = T5Tokenizer.from_pretrained(folder, extra_ids=0)
    config = T5Config(vocab_size=len(tokenizer) + 8, d_model=32, d_kv=8, d_ff=37, num_layers=2,
                      num_heads=4, feed_forward_proj="gated-gelu")  # fmt: skip
    return tokenizer, lively(T5EncoderModel(config), 4)


def stable_diffusion(folder: Path, scheduler: Any = None) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    tokenizer, encoder = clip()
    scheduler = scheduler or DDIMScheduler(**SD, timestep_spacing="trailing")
    pipe = StableDiffusionPipeline(
        autoencoder(), encoder, tokenizer, unet(), scheduler, None, None,
        requires_safety_checker=False,
    )  # fmt: skip
    return saved(pipe, folder)


def consistency(folder: Path) -> Any:
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    tokenizer, encoder = clip()
    return saved(LatentConsistencyModelPipeline(
        autoencoder(), encoder, tokenizer, unet(time_cond_proj_dim=32), LCMScheduler(**SD), None,
        None, requires_safety_checker=False,
    ), folder)  # fmt: skip


def deepfloyd(folder: Path, scheduler: Any = None) -> Any:
    from diffusers import DDPMScheduler, IFPipeline

    tokenizer, encoder = t5(folder / "tokenizer")
    return saved(IFPipeline(
        tokenizer, encoder, if_unet(), scheduler or DDPMScheduler(**IF), None, None, None,
        requires_safety_checker=False,
    ), folder)  # fmt: skip


def saved(pipe: Any, folder: Path) -> Any:
    pipe.set_progress_bar_config(disable=True)
    pipe.save_pretrained(folder)
    return pipe
