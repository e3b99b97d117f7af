"""Tiny models of the CLIP family. Weights are large enough that embeddings tell inputs apart."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from tiny.words import clip_tokenizer, word_tokenizer

DIM = 12
MAX_TOKENS = 16
LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
VISION = {**LAYERS, "image_size": 32, "patch_size": 8}
SIZE = {"height": 32, "width": 32}


def save_clip(folder: Path) -> Path:
    """CLIP, as in the starter pack and the paper."""
    tokenizer = clip_tokenizer(folder, MAX_TOKENS)
    text = {
        **LAYERS,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(text_config=text, vision_config=VISION, projection_dim=DIM)
    image_processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIZE)
    return _save(CLIPModel(config), folder, CLIPProcessor(image_processor, tokenizer))


def save_siglip(folder: Path) -> Path:
    """SigLIP: no projection, no mask; texts are padded to the model's full length."""
    tokenizer = word_tokenizer()
    tokenizer.model_max_length = MAX_TOKENS
    text = {
        **LAYERS,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = SiglipConfig(text_config=text, vision_config=VISION)
    return _save(SiglipModel(config), folder, SiglipImageProcessorPil(size=SIZE), tokenizer)


def _save(model: PreTrainedModel, folder: Path, *processors: object) -> Path:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    target = folder / "model"
    model.save_pretrained(target)
    for processor in processors:
        processor.save_pretrained(target)  # type: ignore[attr-defined]
    return target
