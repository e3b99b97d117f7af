"""Tiny image-to-text models. Weights are large enough that captions depend on the picture."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedModel,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tiny.words import bert_tokenizer, word_tokenizer

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def save_blip(folder: Path) -> Path:
    """BLIP, as in the starter pack and the paper."""
    tokenizer = bert_tokenizer(folder)
    config = BlipConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "encoder_hidden_size": 32,
            "max_position_embeddings": 300,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "sep_token_id": 3,
            "pad_token_id": 0,
        },
        vision_config=VISION,
    )
    image_processor = BlipImageProcessorPil(size={"height": 32, "width": 32})
    return _save(
        BlipForConditionalGeneration(config), folder, BlipProcessor(image_processor, tokenizer)
    )


def save_blip2(folder: Path) -> Path:
    """BLIP-2 with an OPT decoder."""
    tokenizer = word_tokenizer("<image>")
    config = Blip2Config(
        vision_config=VISION,
        qformer_config={**TEXT, "encoder_hidden_size": 32, "vocab_size": len(tokenizer)},
        text_config={
            "model_type": "opt",
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 300,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    image_processor = BlipImageProcessorPil(size={"height": 32, "width": 32})
    processor = Blip2Processor(image_processor, tokenizer, num_query_tokens=4)
    return _save(Blip2ForConditionalGeneration(config), folder, processor)


CHAT_TEMPLATE = (
    "<s>{% for message in messages %}User: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>{% endfor %}{% if add_generation_prompt %} Assistant: {% endif %}"
)


def save_chat_model(folder: Path) -> Path:
    """Idefics3: a chat template, and as many tiles as the picture's shape asks for."""
    tokenizer = word_tokenizer(
        "<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"
    )
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = Idefics3Config(
        image_token_id=image_id,
        vision_config=VISION,
        text_config={
            **TEXT,
            "model_type": "llama",
            "num_key_value_heads": 4,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 1000,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        scale_factor=2,
        pad_token_id=0,
    )
    image_processor = Idefics3ImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    processor = Idefics3Processor(
        image_processor, tokenizer, image_seq_len=4, chat_template=CHAT_TEMPLATE
    )
    return _save(Idefics3ForConditionalGeneration(config), folder, processor)


def save_encoder_decoder(folder: Path) -> Path:
    """A ViT encoder with a BERT decoder: no processor of its own, only its two halves."""
    tokenizer = bert_tokenizer(folder)
    decoder = BertConfig(
        **TEXT, vocab_size=len(tokenizer), is_decoder=True, add_cross_attention=True
    )
    model = VisionEncoderDecoderModel(
        encoder=ViTModel(ViTConfig(**VISION)), decoder=BertLMHeadModel(decoder)
    )
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id = 2
        config.pad_token_id = 0
        config.eos_token_id = 3
    return _save(model, folder, ViTImageProcessorPil(size={"height": 32, "width": 32}), tokenizer)


def _save(model: PreTrainedModel, folder: Path, *processors: object) -> Path:
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    target = folder / "model"
    model.save_pretrained(target)
    for processor in processors:
        processor.save_pretrained(target)  # type: ignore[attr-defined]
    return target
