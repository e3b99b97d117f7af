"""Train the drawing model's autoencoder: 64×64 pixels to 8×8×8 latents, mean 0, deviation 1.

python -m dnd_packs.starter.train.train_vae <work folder> <processor s> <wall-clock s>
"""

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from .clock import Average, Clock, decay_groups, set_learning_rate
from .views import Rasters, drawing_views, seen_views

LATENT_CHANNELS = 8
BATCH = 16


def build_vae() -> AutoencoderKL:
    """A small AutoencoderKL with three halvings."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def _edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 on pixels, on edges and on two coarser scales."""
    loss = functional.l1_loss(output, target)
    for a, b in zip(_edges(output), _edges(target), strict=True):
        loss = loss + functional.l1_loss(a, b)
    for factor in (2, 4):
        loss = loss + 0.5 * functional.l1_loss(
            functional.avg_pool2d(output, factor), functional.avg_pool2d(target, factor)
        )
    return loss


@torch.no_grad()
def fold_statistics(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Scale the 1×1 convolutions around the latent: mean 0 and deviation 1 in every channel.

    The pipeline knows a single scaling factor only; folded in here, that factor is 1.
    """
    latents = torch.cat([vae.encode(batch).latent_dist.mean for batch in images.split(64)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    quant, post = vae.quant_conv, vae.post_quant_conv
    channels = vae.config.latent_channels
    quant.weight[:channels] /= deviation[:, None, None, None]
    quant.bias[:channels] = (quant.bias[:channels] - mean) / deviation
    quant.bias[channels:] -= 2 * deviation.log()
    post.bias += (post.weight[:, :, 0, 0] * mean).sum(1)
    post.weight *= deviation[None, :, None, None]


def main(work: Path, cpu_s: float, wall_s: float) -> None:
    """Train for ``cpu_s`` seconds and save ``vae/`` under the work folder."""
    torch.manual_seed(0)
    rasters, rng = Rasters(work), torch.Generator().manual_seed(1)
    vae = build_vae()
    optimizer = torch.optim.AdamW(decay_groups(vae, weight_decay=1e-4), betas=(0.9, 0.99))
    average, clock, step = Average(vae, 0.995), Clock(cpu_s, wall_s), 0
    while (progress := clock.progress()) < 1:
        set_learning_rate(optimizer, 1e-3, progress)
        index = torch.randint(0, len(rasters), (BATCH,), generator=rng)
        images = (seen_views if step % 6 == 5 else drawing_views)(rasters, index, rng)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(images).latent_dist
            output = vae.decode(posterior.sample()).sample
        kl = posterior.kl().float().mean() / images[0].numel()
        loss = reconstruction_loss(output.float(), images) + 1e-4 * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 5.0)
        optimizer.step()
        average.update(vae)
        if step % 30 == 0:
            l1 = functional.l1_loss(output.float(), images).item() / 2
            print(
                json.dumps(
                    {
                        "step": step,
                        "progress": round(progress, 3),
                        "loss": round(loss.item(), 4),
                        "l1": round(l1, 4),
                        "kl": round(kl.item(), 4),
                    }
                ),
                flush=True,
            )
        step += 1
    index = torch.randint(0, len(rasters), (1024,), generator=rng)
    fold_statistics(average.model, drawing_views(rasters, index, rng))
    average.model.save_pretrained(work / "vae")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
