"""Tiny text-to-image pipelines: SD 1.x, SDXL and LCM with seeded random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tiny.words import clip_tokenizer

MAX_TOKENS = 16
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def save_sd(folder: Path) -> Path:
    """Stable Diffusion 1.x, trained to predict velocities as the starter pack's."""
    scheduler = PNDMScheduler(
        **BETAS, prediction_type="v_prediction", skip_prk_steps=True, steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text(1)),
        tokenizer=clip_tokenizer(folder, MAX_TOKENS),
        unet=_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _save(pipeline, folder)


def save_sdxl(folder: Path) -> Path:
    """SDXL: two text encoders, and the size of the picture as a condition."""
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text(2)),
        text_encoder_2=CLIPTextModelWithProjection(_text(3)),
        tokenizer=clip_tokenizer(folder, MAX_TOKENS),
        tokenizer_2=clip_tokenizer(folder, MAX_TOKENS),
        unet=_unet(
            cross_attention_dim=64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )
    return _save(pipeline, folder)


def save_lcm(folder: Path) -> Path:
    """A latent consistency model: guidance is an input, and noise is added between steps."""
    pipeline = LatentConsistencyModelPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text(1)),
        tokenizer=clip_tokenizer(folder, MAX_TOKENS),
        unet=_unet(time_cond_proj_dim=16),
        scheduler=LCMScheduler(**BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return _save(pipeline, folder)


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 16, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=64,
    )


def _unet(**changes: object) -> UNet2DConditionModel:
    settings = {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 32,
        "attention_head_dim": 8,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**settings, **changes})


def _text(seed: int) -> CLIPTextConfig:
    torch.manual_seed(seed)
    return CLIPTextConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        projection_dim=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _save(pipeline: StableDiffusionPipeline | StableDiffusionXLPipeline, folder: Path) -> Path:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for model in pipeline.components.values():
            for parameter in model.parameters() if isinstance(model, torch.nn.Module) else ():
                if parameter.dim() > 1:
                    width = parameter[0].numel()
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * width**-0.5)
    target = folder / "model"
    pipeline.save_pretrained(target)
    return target
