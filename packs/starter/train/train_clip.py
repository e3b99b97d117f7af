"""Train the scorer, a small CLIP; its image tower starts from the captioner's.

python -m dnd_packs.starter.train.train_clip <work> <processor s> <wall-clock s> [<peak rate>]
"""

import random
import sys
from pathlib import Path

import torch
from transformers import BlipForConditionalGeneration, CLIPConfig, CLIPModel, CLIPTokenizer

from .clock import Average, Clock, Figures, HiddenMatrixOptimizer, set_learning_rate
from .texts import TextTable, draw_template
from .tokenizer import MAX_TOKENS
from .train_captioner import HEADS, LAYERS, PATCH, WIDTH, image_weights
from .views import SIZE, Rasters, seen_views

BATCH = 128
TEXT_WIDTH, PROJECTION = 128, 128
MAX_LOGIT_SCALE = 3.9  # of the natural logarithm: similarities are multiplied by 49 at most


def text_config(tokenizer: CLIPTokenizer, num_layers: int) -> dict:
    """Settings of the text towers of the scorer and of the drawing model."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 3 * TEXT_WIDTH,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "projection_dim": PROJECTION,
        "hidden_act": "gelu",
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP of about 3 million weights."""
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "image_size": SIZE,
        "patch_size": PATCH,
        "projection_dim": PROJECTION,
        "hidden_act": "gelu",
    }
    return CLIPModel(
        CLIPConfig(
            text_config=text_config(tokenizer, 2), vision_config=vision, projection_dim=PROJECTION
        )
    )


@torch.no_grad()
def copy_image_tower(clip: CLIPModel, blip: BlipForConditionalGeneration) -> None:
    """Start CLIP's image tower from BLIP's: equal but for the fused qkv and one more layer norm."""
    source, target = blip.vision_model, clip.vision_model
    target.embeddings.patch_embedding.weight.copy_(source.embeddings.patch_embedding.weight)
    target.embeddings.class_embedding.copy_(source.embeddings.class_embedding.flatten())
    target.embeddings.position_embedding.weight.copy_(source.embeddings.position_embedding[0])
    for theirs, ours in zip(source.encoder.layers, target.encoder.layers, strict=True):
        ours.layer_norm1.load_state_dict(theirs.layer_norm1.state_dict())
        ours.layer_norm2.load_state_dict(theirs.layer_norm2.state_dict())
        ours.mlp.load_state_dict(theirs.mlp.state_dict())
        ours.self_attn.out_proj.load_state_dict(theirs.self_attn.projection.state_dict())
        names = (ours.self_attn.q_proj, ours.self_attn.k_proj, ours.self_attn.v_proj)
        for module, weight, bias in zip(
            names,
            theirs.self_attn.qkv.weight.chunk(3),
            theirs.self_attn.qkv.bias.chunk(3),
            strict=True,
        ):
            module.weight.copy_(weight)
            module.bias.copy_(bias)
    target.post_layernorm.load_state_dict(source.post_layernorm.state_dict())


def contrastive_loss(similarity: torch.Tensor, holds: torch.Tensor) -> torch.Tensor:
    """Cross-entropy both ways; every text that holds for an image is a positive, shared out."""
    by_image = holds / holds.sum(1, keepdim=True)
    by_text = holds / holds.sum(0, keepdim=True)
    images = -(by_image * similarity.log_softmax(1)).sum(1).mean()
    texts = -(by_text * similarity.log_softmax(0)).sum(0).mean()
    return (images + texts) / 2


def main(work: Path, cpu_s: float, wall_s: float, peak: float = 2e-3) -> None:
    """Train for ``cpu_s`` seconds; writes ``scorer/`` under the work folder."""
    torch.manual_seed(0)
    rasters, rng, text_rng = Rasters(work), torch.Generator().manual_seed(6), random.Random(6)
    table = TextTable(rasters)
    tokenizer = CLIPTokenizer.from_pretrained(work / "text_tokenizer")
    blip = BlipForConditionalGeneration.from_pretrained(work / "captioner", dtype=torch.float32)
    model = build_clip(tokenizer).train()
    copy_image_tower(model, blip)
    optimizer = HiddenMatrixOptimizer(
        model, others=("projection", "embedding"), weight_decay=0.02, ratio=5.0
    )
    average, weights, clock = Average(model), image_weights(rasters), Clock(cpu_s, wall_s)
    figures, step = Figures(), 0
    while (progress := clock.progress()) < 1:
        set_learning_rate(optimizer, peak, progress)
        index = torch.multinomial(weights, BATCH, generator=rng)
        bare = [table.images[i].draw(text_rng) for i in index.tolist()]
        texts = [
            draw_template(text_rng, text) if text_rng.random() < 0.6 else text for text in bare
        ]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        holds = table.holds(index.tolist(), bare).float()
        with torch.autocast("cpu", torch.bfloat16):
            output = model(pixel_values=seen_views(rasters, index, rng), **tokens)
        loss = contrastive_loss(output.logits_per_image.float(), holds)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
        average.update(model)
        best = output.logits_per_image.argmax(1)
        right = holds[torch.arange(len(best)), best].mean().item()
        figures.add(loss=loss.item(), right=right, scale=model.logit_scale.exp().item())
        step += 1
        if step % 25 == 0:
            figures.report(step, progress)
    average.model.save_pretrained(work / "scorer")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
