"""Train the captioner, a small BLIP: a ViT of 16 patches and a text decoder that attends to it.

python -m dnd_packs.starter.train.train_captioner <work> <processor s> <wall-clock s> [<peak rate>]

An earlier run's weights in the work folder are the start of the next.
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn import functional
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration

from dnd_packs.starter.emoji_data import load_concepts

from .clock import Average, Clock, decay_groups, set_learning_rate
from .texts import TextTable
from .views import SIZE, Rasters, seen_views

BATCH = 64
WIDTH, LAYERS, HEADS, PATCH = 192, 4, 6, 16
STYLE_WEIGHTS = {"openmoji": 2.0, "fluent-emoji": 0.7, "noto-v1": 0.7}
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
    """How often each raster is shown: OpenMoji twice; flags and people less."""
    concepts = load_concepts()
    return torch.tensor(
        [
            STYLE_WEIGHTS.get(row["style"], 1.0)
            * GROUP_WEIGHTS.get(concepts[row["concept"]].group, 1.0)
            * (1.0 if row["base"] else 0.3)
            for row in rasters.rows
        ]
    )


def main(work: Path, cpu_s: float, wall_s: float, peak: float = 1.5e-3) -> None:
    """Train for ``cpu_s`` seconds; writes ``captioner/`` under the work folder."""
    torch.manual_seed(0)
    rasters, rng = Rasters(work), torch.Generator()
    rng.seed()
    captions = TextTable(rasters).captions
    tokenizer = BertTokenizer.from_pretrained(work / "caption_tokenizer")
    tokens = tokenizer(captions, padding=True, return_tensors="pt")
    input_ids, mask = tokens.input_ids, tokens.attention_mask
    model = build_captioner(tokenizer)
    start_patch_embedding(model, seen_views(rasters, torch.arange(0, len(rasters), 4), rng))
    classifier = torch.nn.Linear(WIDTH, len(load_concepts()))
    if (work / "captioner").exists():
        model = BlipForConditionalGeneration.from_pretrained(
            work / "captioner", dtype=torch.float32
        )
        classifier.load_state_dict(torch.load(work / "captioner" / "classifier.pt"))
    input_ids[:, 0] = model.config.text_config.bos_token_id
    model.train()
    trained = torch.nn.ModuleList([model, classifier])
    optimizer = torch.optim.AdamW(decay_groups(trained, weight_decay=0.05), betas=(0.9, 0.98))
    average, weights, clock, step = (
        Average(trained),
        image_weights(rasters),
        Clock(cpu_s, wall_s),
        0,
    )
    while (progress := clock.progress()) < 1:
        set_learning_rate(optimizer, peak, progress)
        index = torch.multinomial(weights, BATCH, generator=rng)
        images = seen_views(rasters, index, rng, crops=0.1 + 0.35 * progress)
        ids, attention = input_ids[index], mask[index]
        longest = int(attention.sum(1).max())
        ids, attention = ids[:, :longest], attention[:, :longest]
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.vision_model(pixel_values=images).last_hidden_state
            logits = model.text_decoder(
                input_ids=ids,
                attention_mask=attention,
                encoder_hidden_states=seen,
                return_dict=True,
            ).logits
            guess = classifier(seen[:, 0])
        targets = ids[:, 1:].masked_fill(attention[:, 1:] == 0, -100)
        words = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=-100
        )
        classes = functional.cross_entropy(
            guess.float(), rasters.concept[index], label_smoothing=0.05
        )
        optimizer.zero_grad(set_to_none=True)
        (words + 0.3 * classes).backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        average.update(trained)
        if step % 20 == 0:
            right = (guess.argmax(1) == rasters.concept[index]).float().mean().item()
            print(
                json.dumps(
                    {
                        "step": step,
                        "progress": round(progress, 3),
                        "words": round(words.item(), 4),
                        "classes": round(classes.item(), 3),
                        "class_accuracy": round(right, 3),
                    }
                ),
                flush=True,
            )
        step += 1
    model, classifier = average.model
    model.save_pretrained(work / "captioner")
    torch.save(classifier.state_dict(), work / "captioner" / "classifier.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
