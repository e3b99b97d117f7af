"""Train the captioner, a small BLIP: a ViT of 16 patches and a text decoder that attends to it.

python -m dnd_packs.starter.train.train_captioner <work> <processor s> <wall-clock s> [<peak rate>]

The image tower first learns to tell the concepts apart, without the decoder, which halves the cost
of a step; then it learns to speak. Whole centred emoji come first, what services show comes later.
"""

import sys
from pathlib import Path

import torch
from torch.nn import functional
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration

from dnd_packs.starter.emoji_data import load_concepts

from .clock import Average, Clock, Figures, HiddenMatrixOptimizer, set_learning_rate
from .texts import TextTable
from .views import SIZE, Rasters, drawing_views, seen_views

BATCH = 64
WIDTH, LAYERS, HEADS, PATCH = 192, 4, 6, 16
SILENT_SHARE = 0.35
CLASS_WEIGHT = 0.5
CHECKPOINT_STEPS = 500
STYLE_WEIGHTS = {"openmoji": 4.0, "fluent-emoji": 0.5, "noto-v1": 0.5}
GROUP_WEIGHTS = {"flags": 0.5, "people-body": 0.7}


def build_captioner(tokenizer: BertTokenizer) -> BlipForConditionalGeneration:
    """A BLIP captioner of about 3 million weights."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "encoder_hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "projection_dim": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
        "max_position_embeddings": 48,
        "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "label_smoothing": 0.0,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "projection_dim": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "image_size": SIZE,
        "patch_size": PATCH,
        "initializer_range": 0.04,  # the class's own default, 1e-10, takes very long to leave
    }
    config = BlipConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=WIDTH,
        image_text_hidden_size=WIDTH,
        label_smoothing=0.0,
    )
    return BlipForConditionalGeneration(config)


@torch.no_grad()
def start_patch_embedding(model: BlipForConditionalGeneration, images: torch.Tensor) -> None:
    """Start the patch embedding from whitened principal components of image patches."""
    embeddings = model.vision_model.embeddings
    patches = functional.unfold(images, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    centred = patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    values, vectors = values.flip(0)[:WIDTH], vectors.flip(1)[:, :WIDTH]
    weight = 0.5 * vectors.T / (values + 0.02 * values[:8].mean()).sqrt()[:, None]
    embeddings.patch_embedding.weight.copy_(weight.unflatten(1, (3, PATCH, PATCH)))
    embeddings.patch_embedding.bias.copy_(-weight @ patches.mean(0))
    embeddings.position_embedding.normal_(std=0.15)
    embeddings.class_embedding.normal_(std=0.15)


def image_weights(rasters: Rasters) -> torch.Tensor:
    """How often each raster is shown: OpenMoji more, flags and people less."""
    concepts = load_concepts()
    return torch.tensor(
        [
            STYLE_WEIGHTS.get(row["style"], 1.0)
            * GROUP_WEIGHTS.get(concepts[row["concept"]].group, 1.0)
            * (1.0 if row["base"] else 0.3)
            for row in rasters.rows
        ]
    )


def training_views(
    rasters: Rasters, index: torch.Tensor, rng: torch.Generator, progress: float
) -> torch.Tensor:
    """Easy views first: whole, nearly centred emoji give way to what the services show."""
    hard = int(len(index) * min(0.1 + 1.3 * progress, 0.9))
    return torch.cat(
        [
            seen_views(rasters, index[:hard], rng, crops=0.1 + 0.35 * progress),
            drawing_views(rasters, index[hard:], rng),
        ]
    )


def guess_concepts(classifier: torch.nn.Linear, seen: torch.Tensor) -> torch.Tensor:
    """Concept logits from hidden states ``(images, 1 + patches, WIDTH)``, class token first."""
    return classifier(seen[:, 0] + seen[:, 1:].mean(1))


def word_loss(
    model: BlipForConditionalGeneration, seen: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """Mean cross-entropy of the next token; ``ids`` and ``mask`` are ``(images, tokens)``."""
    longest = int(mask.sum(1).max())
    ids, mask = ids[:, :longest], mask[:, :longest]
    logits = model.text_decoder(
        input_ids=ids, attention_mask=mask, encoder_hidden_states=seen, return_dict=True
    ).logits
    targets = ids[:, 1:].masked_fill(mask[:, 1:] == 0, -100)
    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=-100
    )


def main(work: Path, cpu_s: float, wall_s: float, peak: float = 3e-3) -> None:
    """Train for ``cpu_s`` seconds; writes ``captioner/`` under the work folder."""
    torch.manual_seed(0)
    rasters, rng = Rasters(work), torch.Generator().manual_seed(4)
    tokenizer = BertTokenizer.from_pretrained(work / "caption_tokenizer")
    tokens = tokenizer(TextTable(rasters).captions, padding=True, return_tensors="pt")
    input_ids, mask = tokens.input_ids, tokens.attention_mask
    model = build_captioner(tokenizer).train()
    input_ids[:, 0] = model.config.text_config.bos_token_id
    start_patch_embedding(model, drawing_views(rasters, torch.arange(0, len(rasters), 4), rng))
    classifier = torch.nn.Linear(WIDTH, len(load_concepts()))
    trained = torch.nn.ModuleDict({"blip": model, "classifier": classifier})
    optimizer = HiddenMatrixOptimizer(
        trained,
        others=("predictions.decoder", "classifier", "embedding"),
        weight_decay=0.02,
        ratio=7.0,
    )
    average, weights, clock = Average(trained), image_weights(rasters), Clock(cpu_s, wall_s)
    figures, step = Figures(), 0
    while (progress := clock.progress()) < 1:
        set_learning_rate(optimizer, peak, progress, warmup=0.01)
        speaking = progress > SILENT_SHARE
        index = torch.multinomial(weights, BATCH, generator=rng)
        images = training_views(rasters, index, rng, progress)
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.vision_model(pixel_values=images).last_hidden_state
            guess = guess_concepts(classifier, seen).float()
            words = word_loss(model, seen, input_ids[index], mask[index]) if speaking else None
        classes = functional.cross_entropy(guess, rasters.concept[index])
        optimizer.zero_grad()
        (classes if words is None else words + CLASS_WEIGHT * classes).backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        average.update(trained)
        right = (guess.argmax(1) == rasters.concept[index]).float().mean()
        figures.add(classes=classes.item(), right=right.item())
        if words is not None:
            figures.add(words=words.item())
        step += 1
        if step % 50 == 0:
            figures.report(step, progress)
        if step % CHECKPOINT_STEPS == 0:
            average.model["blip"].save_pretrained(work / "captioner")
    average.model["blip"].save_pretrained(work / "captioner")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
