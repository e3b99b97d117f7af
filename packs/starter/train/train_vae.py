"""Train the drawing model's autoencoder: 64×64 pixels to 8×8×8 latents, mean 0, deviation 1.

python -m dnd_packs.starter.train.train_vae <work> <processor s> <wall-clock s>
"""

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from .clock import Average, Clock, Figures, HiddenMatrixOptimizer, set_learning_rate
from .latents import drawing_images
from .views import Rasters, drawing_views

LATENT_CHANNELS = 8
BATCH = 16
NUM_COLOURS = 3
ANCHOR = 2.0  # mean colour in −1..1 to latent


def build_vae() -> AutoencoderKL:
    """A small AutoencoderKL with three halvings."""
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=1,  # more groups of so few channels lose the colours
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def _edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 on pixels, edges, coarser scales and hues (red and blue to green); L2 on mean colours."""
    loss = functional.l1_loss(output, target)
    for a, b in zip(_edges(output), _edges(target), strict=True):
        loss = loss + functional.l1_loss(a, b)
    for factor in (2, 8):
        loss = loss + 0.5 * functional.l1_loss(
            functional.avg_pool2d(output, factor), functional.avg_pool2d(target, factor)
        )
    hues = [picture[:, [0, 2]] - picture[:, [1, 1]] for picture in (output, target)]
    means = [functional.avg_pool2d(picture, 8) for picture in (output, target)]
    # Squared, as absolute errors let the few green and blue things go the way of the many yellow.
    return loss + functional.l1_loss(*hues) + 4 * functional.mse_loss(*means)


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


def training_step(vae: AutoencoderKL, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """One forward pass: ``loss`` with its graph, and the figures for the log."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(images).latent_dist
        output = vae.decode(posterior.sample()).sample.float()
    kl = posterior.kl().float().mean() / images[0].numel()
    # Three channels hold the mean colour of each 8×8 square. Left alone, latents trained for
    # minutes hold brightness and shape, and every green or blue thing turns brown.
    colours = ANCHOR * functional.avg_pool2d(images, 8)
    anchor = functional.mse_loss(posterior.mean[:, :NUM_COLOURS].float(), colours)
    error = functional.l1_loss(output.detach(), images) / 2
    loss = reconstruction_loss(output, images) + 1e-4 * kl + anchor
    return {"loss": loss, "l1": error, "kl": kl, "anchor": anchor}


def main(work: Path, cpu_s: float, wall_s: float) -> None:
    """Train for ``cpu_s`` seconds and save ``vae/`` under the work folder.

    An earlier run's weights there are the start.
    """
    torch.manual_seed(0)
    rasters, rng = Rasters(work), torch.Generator().manual_seed(1)
    index, weights = drawing_images(rasters)
    vae = AutoencoderKL.from_pretrained(work / "vae") if (work / "vae").exists() else build_vae()
    vae.train()
    optimizer = HiddenMatrixOptimizer(
        vae, others=("conv_in", "conv_out", "quant"), weight_decay=1e-4, ratio=6.0, iterations=4
    )
    average, clock, figures, step = Average(vae, 0.995), Clock(cpu_s, wall_s), Figures(), 0
    while (progress := clock.progress()) < 1:
        set_learning_rate(optimizer, 2e-3, progress)
        chosen = index[torch.multinomial(weights, BATCH, generator=rng)]
        losses = training_step(vae, drawing_views(rasters, chosen, rng))
        optimizer.zero_grad()
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 5.0)
        optimizer.step()
        average.update(vae)
        figures.add(**{name: value.item() for name, value in losses.items()})
        step += 1
        if step % 50 == 0:
            figures.report(step, progress)
    chosen = index[torch.multinomial(weights, 1024, generator=rng)]
    fold_statistics(average.model, drawing_views(rasters, chosen, rng))
    average.model.save_pretrained(work / "vae")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(float, sys.argv[2:]))
