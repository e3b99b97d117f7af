"""Start the drawing model's text encoder: which emoji does a text mean, and what does it look like?

python -m dnd_packs.starter.train.train_text <work> <processor s> <wall-clock s> [<peak rate>]

Noise hides most of what a text says from a drawing model: trained from nothing together with the
UNet, the encoder settles on one or two differences between texts ("round or not") and stays there.
Here it learns without noise first, by guessing concept and mean latent of the picture. An earlier
run's weights in the work folder are the start of the next.
"""

import random
import sys
from pathlib import Path

import torch
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dnd_packs.starter.emoji_data import load_concepts

from .clock import Average, Clock, Figures, HiddenMatrixOptimizer, set_learning_rate
from .latents import drawing_images, open_latents
from .texts import TextTable, TextTokens, draw_template
from .train_clip import TEXT_WIDTH, text_config
from .train_vae import NUM_COLOURS
from .views import Rasters

BATCH = 256


def main(work: Path, cpu_s: float, wall_s: float, peak: float = 3e-3) -> None:
    """Train for ``cpu_s`` seconds; writes ``text_encoder/`` under the work folder."""
    torch.manual_seed(0)
    rasters, rng, text_rng = Rasters(work), torch.Generator().manual_seed(7), random.Random(7)
    table = TextTable(rasters)
    index, weights = drawing_images(rasters)
    pictures = open_latents(work, rasters, index).float().mean(1)
    num_colour_values = pictures[0, :NUM_COLOURS].numel()  # the first channels hold mean colours
    pictures = pictures.flatten(1)
    tokenizer = CLIPTokenizer.from_pretrained(work / "text_tokenizer")
    tokens = TextTokens(tokenizer)
    encoder = CLIPTextModel(CLIPTextConfig(**text_config(tokenizer, 2)))
    if (work / "text_encoder").exists():
        encoder = CLIPTextModel.from_pretrained(work / "text_encoder", dtype=torch.float32)
    trained = torch.nn.ModuleDict(
        {
            "encoder": encoder,
            "concept_head": torch.nn.Linear(TEXT_WIDTH, len(load_concepts())),
            "picture_head": torch.nn.Linear(TEXT_WIDTH, pictures.shape[1]),
        }
    ).train()
    optimizer = HiddenMatrixOptimizer(trained, others=("head",), weight_decay=0.01, ratio=5.0)
    average, clock, figures, step = Average(trained), Clock(cpu_s, wall_s), Figures(), 0
    while (progress := clock.progress()) < 1:
        set_learning_rate(optimizer, peak, progress)
        chosen = torch.multinomial(weights, BATCH, generator=rng)
        images = index[chosen]
        texts = [draw_template(text_rng, table.images[i].draw(text_rng)) for i in images.tolist()]
        with torch.autocast("cpu", torch.bfloat16):
            hidden = encoder(tokens(texts)).last_hidden_state.mean(1)
            concept = trained["concept_head"](hidden).float()
            picture = trained["picture_head"](hidden).float()
        classes = functional.cross_entropy(concept, rasters.concept[images])
        error = functional.mse_loss(picture, pictures[chosen])
        colour = functional.mse_loss(
            picture[:, :num_colour_values], pictures[chosen, :num_colour_values]
        )
        optimizer.zero_grad()
        (0.2 * classes + error + colour).backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        average.update(trained)
        figures.add(classes=classes.item(), error=error.item(), colour=colour.item())
        step += 1
        if step % 50 == 0:
            figures.report(step, progress)
    average.model["encoder"].save_pretrained(work / "text_encoder")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
