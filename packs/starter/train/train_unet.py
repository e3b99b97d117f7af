"""Train the drawing model: latent diffusion UNet and CLIP text encoder together, on fixed latents.

python -m dnd_packs.starter.train.train_unet <work> <processor s> <wall-clock s> [<peak rate>]

An earlier run's weights in the work folder are the start of the next.
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dnd_packs.starter.emoji_data import load_concepts

from .clock import Average, Clock, decay_groups, set_learning_rate
from .texts import TextTable, draw_template
from .tokenizer import MAX_TOKENS
from .train_clip import TEXT_WIDTH, text_config
from .train_vae import LATENT_CHANNELS
from .views import Rasters, drawing_views

BATCH = 64
VIEWS = 4
CHECKPOINT_STEPS = 500
STYLE_WEIGHTS = {"openmoji": 1.3, "noto": 1.0, "fluent-emoji-flat": 1.0}
GROUP_WEIGHTS = {"flags": 0.1, "people-body": 0.35, "symbols": 0.4}
NOISE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}


def build_unet() -> UNet2DConditionModel:
    """A UNet of two levels, 8×8 and 4×4, with cross-attention at 4×4."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(80, 160),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


def drawing_images(rasters: Rasters) -> tuple[torch.Tensor, torch.Tensor]:
    """Rasters the drawing model learns from, and how often it is shown each."""
    concepts = load_concepts()
    index = [
        i for i, row in enumerate(rasters.rows) if row["style"] in STYLE_WEIGHTS and row["base"]
    ]
    weights = [
        STYLE_WEIGHTS[rasters.rows[i]["style"]]
        * GROUP_WEIGHTS.get(concepts[rasters.rows[i]["concept"]].group, 1.0)
        for i in index
    ]
    return torch.tensor(index), torch.tensor(weights)


@torch.no_grad()
def write_latents(work: Path, rasters: Rasters, index: torch.Tensor) -> None:
    """Encode ``VIEWS`` views of each image: ``latents.npy`` (images, views, 8, 8, 8) float16."""
    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    rng = torch.Generator().manual_seed(3)
    views = []
    for _ in range(VIEWS):
        latents = []
        for chunk in index.split(64):
            with torch.autocast("cpu", torch.bfloat16):
                latents.append(
                    vae.encode(drawing_views(rasters, chunk, rng)).latent_dist.mean.to(
                        torch.float16
                    )
                )
        views.append(torch.cat(latents))
    np.save(work / "latents.npy", torch.stack(views, 1).numpy())


class TextTokens:
    """Token ids of texts, padded to the pipeline's fixed length, each computed once."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        self._tokenizer, self._known = tokenizer, {}

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Return ids ``(texts, MAX_TOKENS)``."""
        for text in texts:
            if text not in self._known:
                ids = self._tokenizer(
                    text, padding="max_length", truncation=True, max_length=MAX_TOKENS
                ).input_ids
                self._known[text] = torch.tensor(ids)
        return torch.stack([self._known[text] for text in texts])


def save(model: torch.nn.ModuleList, work: Path) -> None:
    """Write ``unet/`` and ``text_encoder/`` under the work folder."""
    for part, name in zip(model, ("unet", "text_encoder"), strict=True):
        part.save_pretrained(work / name)


def main(work: Path, cpu_s: float, wall_s: float, peak: float = 2e-3) -> None:
    """Train for ``cpu_s`` seconds; writes ``unet/`` and ``text_encoder/`` under the work folder."""
    torch.manual_seed(0)
    rasters, rng, text_rng = Rasters(work), torch.Generator(), random.Random()
    rng.seed()
    table = TextTable(rasters)
    index, weights = drawing_images(rasters)
    if not (work / "latents.npy").exists():
        write_latents(work, rasters, index)
    latents = torch.from_numpy(np.load(work / "latents.npy"))
    tokenizer = CLIPTokenizer.from_pretrained(work / "text_tokenizer")
    tokens = TextTokens(tokenizer)
    if (work / "unet").exists():
        unet = UNet2DConditionModel.from_pretrained(work / "unet")
        encoder = CLIPTextModel.from_pretrained(work / "text_encoder", dtype=torch.float32)
    else:
        unet, encoder = build_unet(), CLIPTextModel(CLIPTextConfig(**text_config(tokenizer, 2)))
    trained = torch.nn.ModuleList([unet, encoder]).train()
    print(
        f"{sum(p.numel() for p in trained.parameters()) / 1e6:.1f} M weights, {len(index)} images",
        flush=True,
    )
    optimizer = torch.optim.AdamW(decay_groups(trained, weight_decay=0.01), betas=(0.9, 0.99))
    average, clock, noise_schedule, step = (
        Average(trained),
        Clock(cpu_s, wall_s),
        DDPMScheduler(**NOISE),
        0,
    )
    recent = []
    while (progress := clock.progress()) < 1:
        set_learning_rate(optimizer, peak, progress)
        chosen = torch.multinomial(weights, BATCH, generator=rng)
        clean = latents[chosen, torch.randint(0, VIEWS, (BATCH,), generator=rng)].float()
        texts = [
            ""
            if text_rng.random() < 0.1
            else draw_template(text_rng, table.images[i].draw(text_rng))
            for i in index[chosen].tolist()
        ]
        noise = torch.randn(clean.shape, generator=rng)
        # Stratified time steps: one in each of BATCH equal parts.
        times = ((torch.arange(BATCH) + torch.rand(BATCH, generator=rng)) / BATCH * 1000).long()
        noisy = noise_schedule.add_noise(clean, noise, times)
        target = noise_schedule.get_velocity(clean, noise, times)
        with torch.autocast("cpu", torch.bfloat16):
            condition = encoder(tokens(texts)).last_hidden_state
            output = unet(noisy, times, condition).sample
        loss = functional.mse_loss(output.float(), target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        average.update(trained)
        recent.append(loss.item())
        if step % 50 == 0:
            mean = sum(recent) / len(recent)
            recent = []
            print(
                json.dumps({"step": step, "progress": round(progress, 3), "loss": round(mean, 4)}),
                flush=True,
            )
        step += 1
        if step % CHECKPOINT_STEPS == 0:
            save(average.model, work)
    save(average.model, work)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
