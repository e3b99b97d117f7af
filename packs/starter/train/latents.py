"""What the drawing model learns from: which images, how often each, and their latents."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from dnd_packs.starter.emoji_data import load_concepts

from .views import Rasters, drawing_views

VIEWS = 2
# A picture is drawn well once it has been shown some hundred times, which the budget allows for
# about a thousand: mostly one style, and few of the groups whose members hardly differ.
STYLE_WEIGHTS = {"openmoji": 1.0, "noto": 0.15, "fluent-emoji-flat": 0.15}
GROUP_WEIGHTS = {"flags": 0.05, "people-body": 0.15, "symbols": 0.2}


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
def open_latents(work: Path, rasters: Rasters, index: torch.Tensor) -> torch.Tensor:
    """Latents of ``VIEWS`` views of each image, float16 ``(images, VIEWS, 8, 8, 8)``.

    Kept as ``latents.npy`` under the work folder; made from ``vae/`` if it is not there.
    """
    path = work / "latents.npy"
    if not path.exists():
        vae = AutoencoderKL.from_pretrained(work / "vae").eval()
        rng = torch.Generator().manual_seed(3)
        views = []
        for _ in range(VIEWS):
            latents = []
            for chunk in index.split(64):
                with torch.autocast("cpu", torch.bfloat16):
                    mean = vae.encode(drawing_views(rasters, chunk, rng)).latent_dist.mean
                latents.append(mean.to(torch.float16))
            views.append(torch.cat(latents))
        np.save(path, torch.stack(views, 1).numpy())
    return torch.from_numpy(np.load(path))
